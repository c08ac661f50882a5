// The OpenAPI document, linked into the daemon (generated from openapi.json by the build).
#pragma once

#include <string_view>

namespace duplex::api {

extern const std::string_view kOpenApi;

}  // namespace duplex::api
