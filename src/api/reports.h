// Reports over the whole array: status, support bundle, metrics.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "control/array.h"
#include "rt/task.h"

namespace duplex::api {

// {"array","id","ok","lines":[{"severity","text","next"}],"pool",...}: worst first, at most ten
// lines.
rt::Task<nlohmann::json> status_report(control::Array& array);

// One text with everything a person who helps needs, and no secret.
rt::Task<std::string> support_page(control::Array& array);

// Prometheus text format 0.0.4.
rt::Task<std::string> metrics_page(control::Array& array);

}  // namespace duplex::api
