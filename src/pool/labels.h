// Labels on a device: reading, writing, and what else may stand there.
//
// Thread: control core. The file is not in use by anybody else (the caller has its lock).
#pragma once

#include <string>

#include "base/error.h"
#include "format/device_label.h"
#include "pool/device_port.h"
#include "rt/file.h"
#include "rt/task.h"

namespace duplex::pool {

struct FoundLabel {
  format::DeviceLabel label;  // the later copy of those that decode: by sequence, then by life
  bool is_alone = false;      // the other copy does not decode: damaged, or torn by a power cut
};
// kCorrupt: neither copy decodes; kNotSupported: written by a newer version; kMediumRead.
rt::Task<Result<FoundLabel>> read_label(rt::File& file);

// Copy A, flushed, then copy B, flushed: a crash leaves one that decodes.
// 0 or an errno.
rt::Task<int> write_label(DevicePort& port, format::DeviceLabel label);
rt::Task<int> write_label(rt::File& file, format::DeviceLabel label);
// No label is left.
rt::Task<int> wipe_label(DevicePort& port);

// Refuses a device that carries something: a label of this or another array, a file system or
// other known content, or any byte that is not zero in its first MiB. kState, naming it.
rt::Task<Result<void>> check_unused(rt::File& file, const Uuid& array_uuid);

}  // namespace duplex::pool
