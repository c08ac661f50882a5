#include <fmt/format.h>

#include "base/text.h"
#include "rt/net.h"

namespace duplex::rt {

Result<Address> Address::parse(std::string_view text) {
  const auto bad = [&] {
    return fail(Code::kInvalid, fmt::format("'{}' is not an address", text),
                "use unix:PATH or tcp:HOST:PORT");
  };
  Address address;
  if (text.starts_with("unix:")) {
    address.host = text.substr(5);
    // sun_path holds 108 bytes with the closing zero (unix(7)).
    if (address.host.empty() || address.host.size() > 107) return bad();
    return address;
  }
  if (!text.starts_with("tcp:")) return bad();
  text.remove_prefix(4);
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad();
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const auto port = parse_number(text.substr(colon + 1));
  if (host.empty() || !port || *port > 65535) return bad();
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
