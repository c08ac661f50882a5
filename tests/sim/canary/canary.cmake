# Canaries: programs with one planted bug each (src/base/planted_bug.h), to see that the simulator
# finds it. Only the source that has the bug is compiled anew; its object stands before the
# libraries, so the linker never takes the sound one out of its archive.
#   duplex_canary(skip_scrub BUG kSkipScrub SOURCE pool/cleaner.cc LIBS sim_scene sim_main)
function(duplex_canary name)
  cmake_parse_arguments(ARG "" "BUG;SOURCE" "LIBS" ${ARGN})
  add_executable(canary_${name} ${CMAKE_SOURCE_DIR}/src/${ARG_SOURCE})
  duplex_target(canary_${name})
  target_compile_definitions(canary_${name} PRIVATE DUPLEX_PLANTED_BUG=${ARG_BUG})
  target_include_directories(canary_${name} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(canary_${name} PRIVATE ${ARG_LIBS} duplex_control duplex_nbd duplex_sim)
endfunction()

duplex_canary(skip_scrub BUG kSkipScrub SOURCE pool/cleaner.cc LIBS sim_scene sim_main)
duplex_canary(flush_skips_device BUG kFlushSkipsDevice SOURCE pool/backing_flush.cc LIBS sim_scene sim_main)
duplex_canary(map_before_commit BUG kMapBeforeCommit SOURCE pool/mapper.cc LIBS sim_scene sim_main)
duplex_canary(no_range_lock BUG kNoRangeLock SOURCE volume/write_path.cc LIBS sim_scene sim_main)
duplex_canary(commit_without_sync BUG kCommitWithoutSync SOURCE meta/sqlite_vfs.cc LIBS sim_scene sim_main)
duplex_canary(failed_flush_forgotten BUG kFailedFlushForgotten SOURCE pool/device_port.cc LIBS sim_scene sim_main)
