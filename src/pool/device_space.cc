#include "pool/device_space.h"

namespace duplex::pool {

DeviceSpace::State& DeviceSpace::at(PhysicalExtent pe, State expected) {
  ASSERT(pe.value() < size() && states_[pe.value()] == expected);
  return states_[pe.value()];
}

std::optional<PhysicalExtent> DeviceSpace::take(std::optional<PhysicalExtent> wish) {
  const auto pe = free_.take(wish);
  if (pe) at(*pe, State::kFree) = State::kTaken;
  return pe;
}

void DeviceSpace::own(PhysicalExtent pe, Owner owner) {
  at(pe, State::kTaken) = State::kUsed;
  owners_[pe.value()] = owner;
  ++used_;
}

void DeviceSpace::release(PhysicalExtent pe) {
  at(pe, State::kUsed) = State::kReleased;
  owners_[pe.value()] = {};
  --used_;
}

void DeviceSpace::add_free(PhysicalExtent pe) {
  const State before = state(pe);
  ASSERT(before == State::kUnclean || before == State::kTaken || before == State::kReleased);
  states_[pe.value()] = State::kFree;
  free_.add(pe);
}

void DeviceSpace::resize(uint32_t extents) {
  ASSERT(extents >= size());
  owners_.resize(extents);
  states_.resize(extents, State::kUnclean);
  free_.resize(extents);
}

void DeviceSpace::load_used(PhysicalExtent pe, Owner owner) {
  at(pe, State::kUnclean) = State::kUsed;
  owners_[pe.value()] = owner;
  ++used_;
}

void DeviceSpace::load_released(PhysicalExtent pe) { at(pe, State::kUnclean) = State::kReleased; }

std::vector<format::LogMap> DeviceSpace::maps() const {
  std::vector<format::LogMap> maps;
  maps.reserve(used_);
  for (const PhysicalExtent pe : in_state(State::kUsed)) {
    maps.push_back({pe, owner(pe).backing, owner(pe).le});
  }
  return maps;
}

std::vector<PhysicalExtent> DeviceSpace::in_state(State state) const {
  std::vector<PhysicalExtent> found;
  for (uint32_t pe = 0; pe < size(); ++pe) {
    if (states_[pe] == state) found.push_back(PhysicalExtent(pe));
  }
  return found;
}

}  // namespace duplex::pool
