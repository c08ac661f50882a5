# Compiler flags shared by every target. Warnings are errors.
add_library(duplex_flags INTERFACE)
target_compile_options(duplex_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Woverloaded-virtual
  -Wimplicit-fallthrough -Werror -fno-omit-frame-pointer)
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g")
target_compile_definitions(duplex_flags INTERFACE SPDLOG_COMPILED_LIB SPDLOG_FMT_EXTERNAL)
target_link_options(duplex_flags INTERFACE -fuse-ld=lld-19)

if(DUPLEX_SANITIZE)
  target_compile_options(duplex_flags INTERFACE -fsanitize=${DUPLEX_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(duplex_flags INTERFACE -fsanitize=${DUPLEX_SANITIZE})
endif()
if(DUPLEX_FUZZ)
  target_compile_options(duplex_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(DUPLEX_COVERAGE)
  target_compile_options(duplex_flags INTERFACE -fprofile-instr-generate -fcoverage-mapping)
  target_link_options(duplex_flags INTERFACE -fprofile-instr-generate)
endif()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
endif()

# One precompiled header (standard library and fmt only) for every target of ours.
add_library(duplex_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/pch.cc)
target_link_libraries(duplex_pch PRIVATE duplex_flags)
target_precompile_headers(duplex_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.h)
target_compile_options(duplex_pch PUBLIC -fpch-instantiate-templates -Xclang -fno-pch-timestamp)

# Every executable and library of ours is set up by this one function.
function(duplex_target target)
  target_link_libraries(${target} PRIVATE duplex_flags)
  target_compile_options(${target} PRIVATE -fpch-instantiate-templates -Xclang -fno-pch-timestamp)
  target_precompile_headers(${target} REUSE_FROM duplex_pch)
endfunction()
