# Canaries: programs with one planted bug each (src/base/planted_bug.h), to see that the simulator
# finds it. Only the source that has the bug is compiled anew; its object stands before the
# libraries, so the linker never takes the sound one out of its archive.
#   duplex_canary(skip_scrub BUG kSkipScrub SOURCE pool/cleaner.cc)
# SCENARIO: a scenario finds it, not a random run; its source under tests/.
function(duplex_canary name)
  cmake_parse_arguments(ARG "" "BUG;SOURCE;SCENARIO" "" ${ARGN})
  set(finder sim_main sim_scene)
  if(ARG_SCENARIO)
    set(finder sim_scenario GTest::gtest_main)
  endif()
  add_executable(canary_${name} ${CMAKE_SOURCE_DIR}/src/${ARG_SOURCE} ${ARG_SCENARIO})
  duplex_target(canary_${name})
  target_compile_definitions(canary_${name} PRIVATE DUPLEX_PLANTED_BUG=${ARG_BUG})
  target_include_directories(canary_${name} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(canary_${name} PRIVATE ${finder} duplex_control duplex_nbd duplex_sim)
endfunction()

duplex_canary(skip_scrub BUG kSkipScrub SOURCE pool/cleaner.cc)
duplex_canary(flush_skips_device BUG kFlushSkipsDevice SOURCE pool/backing_flush.cc)
duplex_canary(map_before_commit BUG kMapBeforeCommit SOURCE pool/mapper.cc)
duplex_canary(no_range_lock BUG kNoRangeLock SOURCE volume/write_path.cc)
duplex_canary(commit_without_sync BUG kCommitWithoutSync SOURCE meta/sqlite_vfs.cc)
duplex_canary(failed_flush_forgotten BUG kFailedFlushForgotten SOURCE pool/device_port.cc)
duplex_canary(ready_before_labels BUG kReadyBeforeLabels SOURCE pool/pool_attach.cc SCENARIO sim/scenarios_labels_test.cc)
duplex_canary(real_clock BUG kRealClock SOURCE volume/write_path.cc)
