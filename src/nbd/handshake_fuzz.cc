// Any bytes from a client, from the first byte on: the conversation ends and others are served.
#include <cstdint>

#include "nbd/fuzz_door.h"

namespace {

using namespace duplex;
using namespace duplex::nbd;

constexpr std::string_view kNames[] = {"db",    "",    "other",   "base:allocation",
                                       "base:", "x:y", "duplex:", "duplex:changed/m1"};

void put_text(ByteWriter& out, FuzzInput& input) {
  const std::string_view text = kNames[input.byte() % std::size(kNames)];
  // Mostly the honest length of the string, at times any number.
  const uint8_t lie = input.byte();
  out.put(lie < 0xe0 ? static_cast<uint32_t>(text.size()) : static_cast<uint32_t>(input.number(4)));
  out.put_string(text);
}

// What stands inside an option, roughly as its number demands.
Bytes payload_of(uint8_t number, FuzzInput& input) {
  ByteWriter out(std::endian::big);
  const bool with_name = number == 6 || number == 7 || number == 9 || number == 10;
  if (with_name) put_text(out, input);
  const uint8_t count = input.byte() % 8;
  if (number == 6 || number == 7) {
    out.put(uint16_t{count});
    for (uint8_t i = 0; i < count; ++i) out.put(static_cast<uint16_t>(input.byte() % 8));
  }
  if (number == 9 || number == 10) {
    out.put(uint32_t{count});
    for (uint8_t i = 0; i < count; ++i) put_text(out, input);
  }
  if (number == 1) out.put_string(kNames[input.byte() % std::size(kNames)]);
  if (input.byte() >= 0xf0) out.put_bytes(input.bytes(input.byte()));
  return out.bytes();
}

// Options with magic and length put right, so that what stands inside them is reached.
Bytes framed(FuzzInput& input) {
  Bytes bytes = client_flags(input.byte() % 4);
  while (!input.empty()) {
    const uint8_t choice = input.byte();
    const uint8_t number = choice % 16;
    const Bytes payload = payload_of(number, input);
    const bool lie = choice >= 0xf8;
    const auto length = lie ? std::optional(static_cast<uint32_t>(input.number(4))) : std::nullopt;
    bytes = join({bytes, option(number, payload, length)});
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t mode = input.byte();
  const bool hang_up = (mode & 1) != 0;
  const size_t step = (mode & 2) != 0 ? 1 + input.byte() : SIZE_MAX;
  FuzzDoor door;
  door.talk((mode & 4) != 0 ? framed(input) : input.bytes(SIZE_MAX), hang_up, step);
  return 0;
}
