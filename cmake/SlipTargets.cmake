# A layer is a folder of sources; together the layers make one library.

# slip_layer(SOURCES ... [LINK ...]): the sources of the folder this is called from.
function(slip_layer)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  cmake_path(GET CMAKE_CURRENT_SOURCE_DIR FILENAME layer)
  add_library(slip_${layer} OBJECT ${ARG_SOURCES})
  target_include_directories(slip_${layer} PUBLIC ${PROJECT_BINARY_DIR}/include)
  target_compile_options(slip_${layer} PRIVATE ${SLIP_COMPILE_OPTIONS}
    -fvisibility-inlines-hidden)
  target_link_libraries(slip_${layer} PUBLIC Threads::Threads ${ARG_LINK})
  set_property(GLOBAL APPEND PROPERTY SLIP_LAYERS ${layer})
endfunction()

# slip_use_layers(TARGET): its objects are those of all layers.
function(slip_use_layers target)
  get_property(layers GLOBAL PROPERTY SLIP_LAYERS)
  foreach(layer IN LISTS layers)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:slip_${layer}>)
    get_target_property(links slip_${layer} LINK_LIBRARIES)
    target_link_libraries(${target} PRIVATE ${links})
  endforeach()
endfunction()

# libslipstream out of all layers.
function(slip_add_library)
  add_library(slipstream)
  add_library(Slipstream::slipstream ALIAS slipstream)
  target_include_directories(slipstream PUBLIC
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  slip_use_layers(slipstream)
  target_link_libraries(slipstream PUBLIC Threads::Threads)
  target_compile_features(slipstream PUBLIC cxx_std_20)
  if(NOT SLIP_SANITIZE)  # whose run-time libraries the program brings
    target_link_options(slipstream PRIVATE LINKER:--no-undefined)
  endif()
  if(BUILD_SHARED_LIBS)
    configure_file(cmake/slipstream.map.in slipstream.map @ONLY)
    target_link_options(slipstream PRIVATE LINKER:--version-script=${PROJECT_BINARY_DIR}/slipstream.map)
    set_property(TARGET slipstream PROPERTY LINK_DEPENDS ${PROJECT_BINARY_DIR}/slipstream.map)
  endif()
  set_target_properties(slipstream PROPERTIES
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)
endfunction()

# slip_test(NAME tier [SINGLE_THREADED | VIRTUAL filter] [LONG filter] SOURCES ... [LINK ...]
#           [DEFINE ...] [NEEDS ...]):
# a GoogleTest program, compiled with the definitions DEFINE, that wants the targets NEEDS built; its
# tests get the label `tier`, which is unit, multiprocess or simulation. What has one thread, as the
# tests in virtual time that the filter VIRTUAL names, has nothing for ThreadSanitizer to find, and is
# left out there. Those of the filter LONG say little more about memory and threads than others do,
# and take long: sanitizers have them with SLIP_LONG_TESTS only.
function(slip_test name tier)
  cmake_parse_arguments(ARG "SINGLE_THREADED" "VIRTUAL;LONG" "SOURCES;LINK;DEFINE;NEEDS" ${ARGN})
  set(left_out)
  if(SLIP_SANITIZE STREQUAL "thread")
    list(APPEND left_out ${ARG_VIRTUAL})
    if(ARG_SINGLE_THREADED)
      list(APPEND left_out *)
    endif()
  endif()
  if(SLIP_SANITIZE AND NOT SLIP_LONG_TESTS)
    list(APPEND left_out ${ARG_LONG})
  endif()
  if("*" IN_LIST left_out)
    return()
  endif()
  set(filter *)
  if(left_out)
    list(JOIN left_out : filter)
    string(PREPEND filter -)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE ${SLIP_COMPILE_OPTIONS})
  target_link_libraries(${name} PRIVATE slipstream GTest::gmock GTest::gtest_main ${ARG_LINK})
  add_dependencies(tests ${name})
  target_compile_definitions(${name} PRIVATE ${ARG_DEFINE})
  if(ARG_NEEDS)
    add_dependencies(${name} ${ARG_NEEDS})
  endif()
  set(processors 1)
  if(tier STREQUAL multiprocess)
    set(processors 2)  # processes that wait for each other run beside nothing else
  endif()
  gtest_discover_tests(${name} NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60 TEST_FILTER "${filter}"
    PROPERTIES LABELS ${tier} TIMEOUT 300 PROCESSORS ${processors})
endfunction()
