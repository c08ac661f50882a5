// The label of a device, byte by byte. The layout stands in docs/FORMAT.md, "Device label".
#include "format/device_label.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "format/fields.h"

namespace duplex::format {
namespace {

constexpr std::array kMagic = magic_of("DUPLEXDV");
constexpr size_t kMaxPathBytes = 255;
// Worst case of a whole label: the fixed fields and kMaxDevices full entries must fit.
constexpr size_t kDeviceEntryMax = 2 + 16 + (1 + kMaxNameBytes) + (1 + kMaxPathBytes);
static_assert(512 + kMaxDevices * kDeviceEntryMax <= kLabelBytes);

// Whether the numbers describe a device that can exist. Arithmetic cannot wrap: each term is
// checked before it is used.
bool geometry_fits(const DeviceLabel& label) {
  if (label.extent_bytes < kBlockBytes || !std::has_single_bit(label.extent_bytes)) return false;
  if (label.log_bytes == 0 || label.log_bytes % (2 * kBlockBytes) != 0) return false;
  if (label.log_offset % kBlockBytes != 0 || label.data_offset % kBlockBytes != 0) return false;
  if (label.log_offset < kLabelOffsets[1] + kLabelBytes) return false;
  if (!range_fits(label.log_offset, label.log_bytes, label.data_offset)) return false;
  return label.data_offset <= kMaxBytes &&
         label.extent_count <= (kMaxBytes - label.data_offset) / label.extent_bytes;
}

Result<DeviceLabel> corrupt(std::string_view why) {
  return fail(Code::kCorrupt, fmt::format("device label is damaged: {}", why));
}

LabelDevice take_device(ByteReader& in) {
  LabelDevice device;
  device.id = DeviceId(in.take<uint16_t>());
  device.uuid = take_uuid(in);
  device.name = take_text(in);
  device.path = take_text(in);
  return device;
}

DeviceLabel take_label(ByteReader& in, uint32_t version) {
  DeviceLabel label;
  label.sequence = in.take<uint64_t>();
  label.array_id = ArrayId(in.take<uint32_t>());
  label.array_uuid = take_uuid(in);
  label.incarnation = take_uuid(in);
  label.uuid = take_uuid(in);
  label.id = DeviceId(in.take<uint16_t>());
  label.extent_bytes = in.take<uint64_t>();
  label.extent_count = in.take<uint32_t>();
  label.log_offset = in.take<uint64_t>();
  label.log_bytes = in.take<uint64_t>();
  label.data_offset = in.take<uint64_t>();
  if (version >= 2) label.life = in.take<uint64_t>();
  label.array_name = take_text(in);
  label.name = take_text(in);
  const size_t devices = in.take<uint16_t>();
  for (size_t i = 0; i < devices && in.ok(); ++i) label.devices.push_back(take_device(in));
  return label;
}

}  // namespace

std::vector<std::byte> encode_label(const DeviceLabel& label) {
  ASSERT(label.devices.size() <= kMaxDevices);
  ByteWriter out;
  out.put_bytes(kMagic);
  out.put<uint32_t>(0);  // CRC, see seal()
  out.put<uint32_t>(kLabelVersion);
  out.put<uint64_t>(label.sequence);
  out.put<uint32_t>(label.array_id.value());
  put_uuid(out, label.array_uuid);
  put_uuid(out, label.incarnation);
  put_uuid(out, label.uuid);
  out.put<uint16_t>(label.id.value());
  out.put<uint64_t>(label.extent_bytes);
  out.put<uint32_t>(label.extent_count);
  out.put<uint64_t>(label.log_offset);
  out.put<uint64_t>(label.log_bytes);
  out.put<uint64_t>(label.data_offset);
  out.put<uint64_t>(label.life);
  put_name(out, label.array_name);
  put_name(out, label.name);
  out.put<uint16_t>(static_cast<uint16_t>(label.devices.size()));
  for (const LabelDevice& device : label.devices) {
    out.put<uint16_t>(device.id.value());
    put_uuid(out, device.uuid);
    put_name(out, device.name);
    put_text(out, std::string_view(device.path).substr(0, kMaxPathBytes));
  }
  ASSERT(out.size() <= kLabelBytes);
  out.pad_to(kLabelBytes);
  seal(out.bytes());
  return std::move(out.bytes());
}

Result<DeviceLabel> decode_label(std::span<const std::byte> bytes) {
  if (!looks_like_label(bytes)) return fail(Code::kCorrupt, "no device label found");
  if (bytes.size() < kLabelBytes) return corrupt("it is cut short");
  bytes = bytes.first(kLabelBytes);
  // Magic and CRC stand at the same place in every version, so that a damaged label is never
  // mistaken for a newer one.
  if (!sealed(bytes)) return corrupt("its checksum does not match");
  ByteReader in(bytes.subspan(kSealedFrom));
  const uint32_t version = in.take<uint32_t>();
  if (version > kLabelVersion) {
    return fail(
        Code::kNotSupported,
        fmt::format("the device was labelled by a newer version of Duplex (label format {}; "
                    "this program knows up to {})",
                    version, kLabelVersion),
        "use the duplexd that wrote it, or a newer one");
  }
  if (version == 0) return corrupt("unknown version");
  DeviceLabel label = take_label(in, version);
  const auto padding = in.take_bytes(in.remaining());
  if (!in.ok() || !is_zero(padding)) return corrupt("its fields do not fit");
  if (label.devices.size() > kMaxDevices) return corrupt("too many devices");
  if (!geometry_fits(label)) return corrupt("its offsets do not fit together");
  const auto name_fits = [](const LabelDevice& d) { return d.name.size() <= kMaxNameBytes; };
  if (label.name.size() > kMaxNameBytes || label.array_name.size() > kMaxNameBytes ||
      !std::ranges::all_of(label.devices, name_fits)) {
    return corrupt("a name is too long");
  }
  return label;
}

bool looks_like_label(std::span<const std::byte> bytes) {
  return bytes.size() >= kMagic.size() && std::ranges::equal(bytes.first(kMagic.size()), kMagic);
}

}  // namespace duplex::format
