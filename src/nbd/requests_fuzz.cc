// Any requests after an honest handshake: the conversation ends, what comes back are whole replies,
// none twice, and others are served.
#include <cstdint>
#include <map>

#include "nbd/fuzz_door.h"

namespace {

using namespace duplex;
using namespace duplex::nbd;

constexpr uint64_t kLengths[] = {0,
                                 1,
                                 512,
                                 4096,
                                 65536,
                                 FuzzDoor::kVolumeBytes,
                                 kMaxRequestBytes,
                                 kMaxRequestBytes + 1,
                                 64 * kMiB,
                                 UINT32_MAX};
constexpr uint64_t kOffsets[] = {0,
                                 1,
                                 512,
                                 4096,
                                 FuzzDoor::kVolumeBytes - 1,
                                 FuzzDoor::kVolumeBytes,
                                 uint64_t{1} << 63,
                                 UINT64_MAX - 511,
                                 UINT64_MAX};

uint64_t pick(std::span<const uint64_t> known, FuzzInput& input, size_t width) {
  const uint8_t choice = input.byte();
  return choice < 0xc0 ? known[choice % known.size()] : input.number(width);
}

struct Sent {
  Bytes bytes;
  std::map<uint64_t, uint32_t> read_lengths;  // by cookie; 0 for what carries no data back
};

// Requests with their magic put right. Payloads of writes are zeroes, now and then too few.
Sent framed(FuzzInput& input) {
  Sent sent;
  while (!input.empty() && sent.bytes.size() < kMiB) {
    const uint8_t choice = input.byte();
    const auto command = static_cast<uint16_t>(choice % 9);
    uint64_t flags = 0;
    if (choice >= 0x80) flags = choice < 0xf0 ? 1u << (choice % 5) : input.number(2);
    const uint64_t offset = pick(kOffsets, input, 8);
    const auto length = static_cast<uint32_t>(pick(kLengths, input, 4));
    size_t payload = 0;
    if (command == 1 && length <= 65536) {
      const uint8_t cut = input.byte();
      payload = cut < 0xf0 ? length : cut;
    }
    const uint64_t cookie = sent.read_lengths.size() + 1;
    sent.read_lengths[cookie] = command == 0 ? length : 0;
    sent.bytes =
        join({std::move(sent.bytes), request(command, offset, length, static_cast<uint16_t>(flags),
                                             cookie, Bytes(payload))});
  }
  return sent;
}

// Whole replies, each to a request that was made, none twice; the last may be cut short.
void check_replies(std::span<const std::byte> heard, std::map<uint64_t, uint32_t> open) {
  ByteReader reader(heard, std::endian::big);
  while (reader.remaining() >= 20) {
    const auto magic = reader.take<uint32_t>();
    uint32_t error = 0;
    size_t body = 0;
    uint64_t cookie = 0;
    bool is_last = true;
    if (magic == kSimpleReplyMagic) {
      error = reader.take<uint32_t>();
      cookie = reader.take<uint64_t>();
      body = error == 0 && open.contains(cookie) ? open[cookie] : 0;
    } else {
      ASSERT(magic == kStructuredReplyMagic);
      is_last = reader.take<uint16_t>() == kChunkDone;
      reader.take<uint16_t>();
      cookie = reader.take<uint64_t>();
      body = reader.take<uint32_t>();
    }
    ASSERT(open.contains(cookie));
    if (is_last) open.erase(cookie);
    if (body > reader.remaining()) return;
    reader.take_bytes(body);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzInput input(data, size);
  const uint8_t mode = input.byte();
  const bool hang_up = (mode & 1) != 0;
  const size_t step = (mode & 2) != 0 ? size_t{1} + input.byte() : SIZE_MAX;
  const bool raw = (mode & 4) != 0;
  const bool structured = (mode & 8) != 0;
  Bytes enter = client_flags();
  if (structured)
    enter = join(
        {enter, option(8, {}), option(10, meta_payload("db", {"base:allocation", "duplex:"}))});
  enter = join({enter, option(7, go_payload("db"))});
  const size_t welcome =
      18 + (structured ? 20 + 20 + 4 + 15 + 2 * (20 + 4 + 17) + 20 : 0) + 20 + 12 + 20 + 14 + 20;

  FuzzDoor door;
  if ((mode & 16) != 0) door.volume().delay = 700;
  if ((mode & 32) != 0) door.volume().failure = Code::kMediumWrite;
  const Sent sent = raw ? Sent{input.bytes(SIZE_MAX), {}} : framed(input);
  const Bytes heard = door.talk(join({enter, sent.bytes, request(2, 0, 0)}), hang_up, step);
  if (!raw && heard.size() > welcome)
    check_replies(std::span(heard).subspan(welcome), sent.read_lengths);
  door.volume().failure.reset();
  return 0;
}
