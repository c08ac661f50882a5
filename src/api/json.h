// The array's structs as JSON: bytes as integers, times as ISO 8601 UTC, keys sorted.
#pragma once

#include <nlohmann/json.hpp>

#include "control/array.h"

namespace duplex::api {

using Json = nlohmann::json;

// `mirrors`: all of the array.
Json to_json(const control::Array& array, const volume::VolumeInfo& info,
             const std::vector<mirror::MirrorInfo>& mirrors);
Json to_json(const pool::DeviceInfo& info);
Json to_json(const pool::PoolUsage& usage);
Json to_json(const pool::Pool::BackingInfo& info);
Json to_json(const pool::ExtentRun& run);
Json to_json(const pool::PhysicalRun& run);
Json to_json(const control::JobInfo& info);
// `array`: of both volumes.
Json to_json(const mirror::MirrorInfo& info, ArrayId array);
Json to_json(const mirror::GroupInfo& info);
Json to_json(const mirror::CutInfo& info);
Json to_json(const mirror::Plan& plan);
Json to_json(const meta::EventRow& row);

std::string_view severity_name(Severity severity);

}  // namespace duplex::api
