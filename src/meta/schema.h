// The tables of the store and how older ones become newer ones. docs/FORMAT.md, "State directory".
#pragma once

#include <cstddef>
#include <span>

#include "base/error.h"
#include "meta/sqlite.h"

namespace duplex::meta {

// "DPLX": PRAGMA application_id of every store.
inline constexpr int32_t kApplicationId = 0x44504c58;

// Step i takes a store from version i to version i + 1; the first one makes the tables. Steps are
// never changed once released, only added.
std::span<const char* const> migrations();

// Which version the open database has: 0 for one that holds nothing. kNotSupported when it is newer
// than `newest`, kState when it is some other program's.
Result<size_t> stored_version(Database& database, size_t newest);

// Runs the steps that are missing, inside the caller's transaction.
Result<void> migrate(Database& database, size_t from, std::span<const char* const> steps);

}  // namespace duplex::meta
