// The label of a device: who it belongs to and how it is laid out. docs/FORMAT.md, "Device".
//
//   0        label, copy A (64 KiB)
//   64 KiB   label, copy B (64 KiB)
//   log_offset   map log, two halves (format/device_log.h)
//   data_offset  physical extent 0
//
// A label is written to one copy, flushed, then to the other; the higher sequence that decodes
// wins. Encode and decode only; no I/O here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "base/uuid.h"

namespace duplex::format {

inline constexpr uint64_t kLabelBytes = 64 * kKiB;
inline constexpr uint64_t kLabelOffsets[2] = {0, kLabelBytes};
inline constexpr uint32_t kLabelVersion = 2;
// Devices one array may have: all of them fit into every label.
inline constexpr size_t kMaxDevices = 128;

// Every label names all devices of its array, so that a rebuild knows when one is missing.
struct LabelDevice {
  DeviceId id;
  Uuid uuid;
  std::string name;
  std::string path;  // where it was last seen; at most 255 bytes are kept
  bool operator==(const LabelDevice&) const = default;
};

struct DeviceLabel {
  uint64_t sequence = 0;
  ArrayId array_id;
  std::string array_name;
  Uuid array_uuid;   // the array, for good
  Uuid incarnation;  // of the store; new after a rebuild
  DeviceId id;
  Uuid uuid;
  std::string name;
  uint64_t extent_bytes = 0;
  uint32_t extent_count = 0;
  uint64_t log_offset = 0;
  uint64_t log_bytes = 0;  // both halves together
  uint64_t data_offset = 0;
  uint64_t life = 0;  // the latest start that used the device; 0: written by version 1
  std::vector<LabelDevice> devices;
  bool operator==(const DeviceLabel&) const = default;
};

// kLabelBytes long. At most kMaxDevices devices.
std::vector<std::byte> encode_label(const DeviceLabel& label);
// kCorrupt: not a label, or damaged. kNotSupported: written by a newer version (the message says
// so).
Result<DeviceLabel> decode_label(std::span<const std::byte> bytes);
// True if the bytes begin like a label of ours, valid or not.
bool looks_like_label(std::span<const std::byte> bytes);

// What else stands at the start of a device ("ext4 file system", "XFS file system", "LVM2 physical
// volume", "GPT partition table", ...), or empty if it looks unused. `bytes`: the first 1 MiB.
std::string recognise_content(std::span<const std::byte> bytes);

}  // namespace duplex::format
