// docs/REFERENCE.md shows the tables as they are. DUPLEX_REWRITE_REFERENCE=1 writes the section.
#include "mirror/states_doc.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

namespace duplex::mirror {
namespace {

TEST(StatesDoc, TheReferenceShowsTheTablesAsTheyAre) {
  const std::string path = std::string(DUPLEX_DOCS) + "/REFERENCE.md";
  std::ifstream in(path);
  std::string page((std::istreambuf_iterator<char>(in)), {});
  const size_t begin = page.find(kStatesBegin);
  const size_t end = page.find(kStatesEnd);
  ASSERT_NE(begin, std::string::npos) << path;
  ASSERT_NE(end, std::string::npos) << path;
  const size_t from = begin + kStatesBegin.size();
  ASSERT_LE(from, end);
  if (std::getenv("DUPLEX_REWRITE_REFERENCE") != nullptr) {
    page.replace(from, end - from, states_markdown());
    std::ofstream(path) << page;
    return;
  }
  EXPECT_TRUE(page.substr(from, end - from) == states_markdown())
      << "run unit_mirror with DUPLEX_REWRITE_REFERENCE=1 and read what changed";
}

}  // namespace
}  // namespace duplex::mirror
