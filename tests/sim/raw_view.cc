#include "sim/raw_view.h"

#include <algorithm>

#include "pool/layout.h"

namespace duplex::simtest {

rt::Task<Result<std::vector<std::byte>>> raw_bytes(control::Array& array, sim::Machine& machine,
                                                   std::string volume) {
  CO_TRY_ASSIGN(const volume::VolumeInfo info, array.volumes().info(volume));
  CO_TRY_ASSIGN(const auto runs, co_await array.volumes().extents(volume));
  std::vector<std::byte> bytes(info.size_bytes);
  for (const pool::ExtentRun& run : runs) {
    for (const pool::DeviceInfo& device : array.pool().devices()) {
      if (device.name != run.device) continue;
      const sim::DiskFile* disk = machine.disk().find(device.path);
      if (disk == nullptr) co_return fail(Code::kNoDevice);
      CO_TRY_ASSIGN(const pool::Layout layout,
                    pool::make_layout(disk->size(), device.extent_bytes));
      for (uint32_t i = 0; i < run.count; ++i) {
        const uint64_t at = (run.le.value() + i) * device.extent_bytes;
        if (at >= bytes.size()) break;
        disk->read(layout.data_offset + (run.pe.value() + i) * device.extent_bytes,
                   std::span(bytes).subspan(at, std::min(device.extent_bytes, bytes.size() - at)));
      }
    }
  }
  co_return bytes;
}

uint64_t differing_regions(const std::vector<std::byte>& a, const std::vector<std::byte>& b) {
  uint64_t differing = 0;
  const uint64_t size = std::max(a.size(), b.size());
  const auto at = [](const std::vector<std::byte>& bytes, uint64_t i) {
    return i < bytes.size() ? bytes[i] : std::byte{0};
  };
  for (uint64_t region = 0; region < size; region += kRegionBytes) {
    for (uint64_t i = region; i < std::min(region + kRegionBytes, size); ++i) {
      if (at(a, i) == at(b, i)) continue;
      ++differing;
      break;
    }
  }
  return differing;
}

}  // namespace duplex::simtest
