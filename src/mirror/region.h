// One region of one mirror: two bits say where its content is and who has to move it.
//
// Owner: the room `mirror`; pure functions. `bit`: S lacks what P has. `missing`: P's own backing
// lacks it and S has it. A region becomes missing only while a target holds it. docs/REFERENCE.md,
// "Mirror states", is printed from here.
#pragma once

#include "mirror/relation.h"

namespace duplex::mirror {

struct RegionBits {
  bool missing = false;
  bool bit = false;
};

enum class ReadFrom : uint8_t { kOwn, kTarget };  // kTarget: an error while S is away
enum class Mover : uint8_t {
  kNobody,
  kSourceToTarget,  // the copier
  kTargetToSource,  // repair or restore: writes P's own backing only
};

struct RegionRule {
  ReadFrom read;
  Mover mover;
};

constexpr RegionRule region_rule(Relation state, RegionBits bits) {
  if (bits.missing) {
    // With the bit set as well S is still the only copy: nothing may be copied over it.
    const bool back =
        state == Relation::kSync || state == Relation::kCopying || state == Relation::kReverse;
    return {ReadFrom::kTarget, back ? Mover::kTargetToSource : Mover::kNobody};
  }
  const bool copy = bits.bit && state == Relation::kCopying;
  return {ReadFrom::kOwn, copy ? Mover::kSourceToTarget : Mover::kNobody};
}

// Does S have the content of the region, so that P may do without its own?
constexpr bool holds(Relation state, RegionBits bits, bool attached) {
  if (!attached) return false;
  switch (state) {
    case Relation::kSync:
    case Relation::kArmed:
      return true;
    case Relation::kCopying:
      return bits.missing || !bits.bit;
    case Relation::kReverse:
    case Relation::kSuspended:
      return bits.missing;
    case Relation::kSimplex:
    case Relation::kSplitting:
    case Relation::kSplit:
      return false;
  }
  return false;
}

}  // namespace duplex::mirror
