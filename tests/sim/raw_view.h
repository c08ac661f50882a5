// RawView: the bytes that a volume's own backing holds, read straight from the simulated disks by
// the extent map, past mirrors, redirections and access rules. Nothing of it passes the code under
// test but the map itself.
//
// Control core, at a quiet moment: what is in flight is not seen.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "control/array.h"
#include "sim/machine.h"

namespace duplex::simtest {

rt::Task<Result<std::vector<std::byte>>> raw_bytes(control::Array& array, sim::Machine& machine,
                                                   std::string volume);

// How many regions differ; a shorter volume ends in zeroes.
uint64_t differing_regions(const std::vector<std::byte>& a, const std::vector<std::byte>& b);

}  // namespace duplex::simtest
