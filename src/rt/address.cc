#include <fmt/format.h>

#include "base/text.h"
#include "rt/net.h"

namespace duplex::rt {

Result<Address> Address::parse(std::string_view text) {
  const auto bad = [&](std::string_view why = {},
                       const char* next = "use unix:PATH or tcp:HOST:PORT") {
    return fail(Code::kInvalid, fmt::format("'{}' is not an address{}", text, why), next);
  };
  Address address;
  if (text.starts_with("unix:")) {
    address.host = text.substr(5);
    if (address.host.empty() || address.host.contains('\0')) return bad();
    // sun_path holds 108 bytes with the closing zero (unix(7)).
    if (address.host.size() > 107) return bad(": the path is longer than 107 bytes");
    return address;
  }
  if (!text.starts_with("tcp:")) return bad();
  const std::string_view rest = text.substr(4);
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad();
  std::string_view host = rest.substr(0, colon);
  const bool in_brackets = host.size() > 2 && host.starts_with('[') && host.ends_with(']');
  if (in_brackets) host = host.substr(1, host.size() - 2);
  // "tcp:[::1" would else be port 1 of the host "[:".
  if (host.find_first_of(in_brackets ? "[]" : "[]:") != std::string_view::npos)
    return bad(": an IPv6 host stands in '[' and ']', and a port follows",
               "use tcp:[HOST]:PORT, for example tcp:[::1]:10809");
  const auto port = parse_number(rest.substr(colon + 1));
  if (!port || *port > 65535) return bad(": the port must be 0 to 65535");
  address.kind = Kind::kTcp;
  address.host = host;
  address.port = static_cast<uint16_t>(*port);
  return address;
}

std::string Address::to_string() const {
  if (kind == Kind::kUnix) return "unix:" + host;
  if (host.find(':') != std::string::npos) return fmt::format("tcp:[{}]:{}", host, port);
  return fmt::format("tcp:{}:{}", host, port);
}

bool Address::is_local() const {
  if (kind == Kind::kUnix) return true;
  if (host == "localhost" || host == "::1") return true;
  // Four decimal numbers, the first 127; "127.evil.example" is a name, not an address.
  int parts = 0;
  std::string_view rest = host;
  while (true) {
    const size_t dot = rest.find('.');
    const auto number = parse_number(rest.substr(0, dot));
    if (!number || *number > 255 || rest.starts_with("0x") || (parts == 0 && *number != 127))
      return false;
    ++parts;
    if (dot == std::string_view::npos) return parts == 4;
    rest.remove_prefix(dot + 1);
  }
}

}  // namespace duplex::rt
