// The tables of this room as Markdown: the section of docs/REFERENCE.md between two markers.
//
// Owner: the room `mirror`; a pure function, called by states_doc_test.cc only, which compares the
// page with it and, told so by DUPLEX_REWRITE_REFERENCE=1, writes it.
#pragma once

#include <string>
#include <string_view>

namespace duplex::mirror {

inline constexpr std::string_view kStatesBegin =
    "<!-- mirror states: printed from src/mirror, begin -->\n";
inline constexpr std::string_view kStatesEnd = "<!-- mirror states: end -->\n";

std::string states_markdown();

}  // namespace duplex::mirror
