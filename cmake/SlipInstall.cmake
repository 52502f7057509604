# What users get, in components that are packages, too (SlipPackage.cmake): `runtime`, the library;
# `development`, its headers and the files by which CMake and pkg-config find it; `tools`, the slip
# program with its manual; `models`, LibTorch's for slip train; `mpi`, worlds of MPI's processes.
# Nothing installed holds an absolute path, so the prefix may be moved.
include(CMakePackageConfigHelpers)
set(SLIP_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Slipstream)

# Public is every header of the library's layers that is not *_internal.h; the tasks of slip train
# are no part of the library.
set(public_headers "")
set(umbrella "")
get_property(layers GLOBAL PROPERTY SLIP_LAYERS)
foreach(layer IN LISTS layers)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
       ${PROJECT_SOURCE_DIR}/${layer}/*.h)
  list(FILTER headers EXCLUDE REGEX "_internal\\.h$|^trainer/tasks/|^c_api/slipstream\\.h$")
  foreach(header IN LISTS headers)
    list(APPEND public_headers ${PROJECT_BINARY_DIR}/include/slipstream/${header})
    # Backends in folders of their own, and what is beside C++, are for those who name them.
    if(NOT header MATCHES "/.*/|^c_api/")
      string(APPEND umbrella "#include \"slipstream/${header}\"\n")
    endif()
  endforeach()
endforeach()
file(CONFIGURE OUTPUT include/slipstream/slipstream.hpp @ONLY CONTENT
"#pragma once

// All of Slipstream for C++.
@umbrella@")
list(APPEND public_headers
  ${PROJECT_BINARY_DIR}/include/slipstream.h
  ${PROJECT_BINARY_DIR}/include/slipstream/slipstream.hpp
  ${PROJECT_BINARY_DIR}/include/slipstream/version.h)

target_sources(slipstream PUBLIC FILE_SET HEADERS
  BASE_DIRS ${PROJECT_BINARY_DIR}/include FILES ${public_headers})
# Each public header compiles alone: target slipstream_verify_interface_header_sets, run by a test.
set_target_properties(slipstream PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)

install(TARGETS slipstream EXPORT SlipstreamTargets
  LIBRARY COMPONENT runtime NAMELINK_COMPONENT development
  ARCHIVE COMPONENT development
  FILE_SET HEADERS COMPONENT development)
install(EXPORT SlipstreamTargets NAMESPACE Slipstream:: DESTINATION ${SLIP_PACKAGE_DIR}
  COMPONENT development)
# find_package(Slipstream COMPONENTS NAME) takes Slipstream-NAME-targets.cmake, where it is there.
install(TARGETS slip EXPORT SlipstreamTools COMPONENT tools)
install(EXPORT SlipstreamTools FILE Slipstream-tools-targets.cmake NAMESPACE Slipstream::
  DESTINATION ${SLIP_PACKAGE_DIR} COMPONENT tools)
if(SLIP_HAVE_MPI)
  target_sources(slipstream_mpi PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_BINARY_DIR}/include
    FILES ${PROJECT_BINARY_DIR}/include/slipstream_mpi.h)
  install(TARGETS slipstream_mpi EXPORT SlipstreamMpi COMPONENT mpi FILE_SET HEADERS COMPONENT mpi)
  install(EXPORT SlipstreamMpi FILE Slipstream-mpi-targets.cmake NAMESPACE Slipstream::
    DESTINATION ${SLIP_PACKAGE_DIR} COMPONENT mpi)
endif()
install(FILES LICENSE COMPONENT runtime
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libslipstream${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
# Programs to build against what is installed, and jobs for Slurm that run it.
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DATADIR}/slipstream COMPONENT development
  PATTERN slurm EXCLUDE)
install(DIRECTORY examples/slurm DESTINATION ${CMAKE_INSTALL_DATADIR}/slipstream/examples
  COMPONENT tools)
configure_file(cmake/modulefile.in modulefile @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/modulefile RENAME ${PROJECT_VERSION} COMPONENT tools
  DESTINATION ${CMAKE_INSTALL_DATADIR}/slipstream/modulefiles/slipstream)
configure_package_config_file(cmake/SlipstreamConfig.cmake.in SlipstreamConfig.cmake
  INSTALL_DESTINATION ${SLIP_PACKAGE_DIR})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(SlipstreamConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/SlipstreamConfig.cmake
  ${PROJECT_BINARY_DIR}/SlipstreamConfigVersion.cmake
  DESTINATION ${SLIP_PACKAGE_DIR} COMPONENT development)
file(RELATIVE_PATH SLIP_PREFIX_FROM_PC /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
# As in SlipstreamConfig.cmake: only a static library has its user link what it is built on.
if(NOT BUILD_SHARED_LIBS)
  set(SLIP_PC_PRIVATE "Requires.private: libhwy hwloc fmt spdlog libcrypto\nLibs.private: -lboost_context\n")
endif()
configure_file(cmake/slipstream.pc.in slipstream.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/slipstream.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
  COMPONENT development)
if(SLIP_HAVE_MPI)
  configure_file(cmake/slipstream-mpi.pc.in slipstream-mpi.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/slipstream-mpi.pc COMPONENT mpi
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

# The reference of the public headers, where Doxygen is here.
find_program(SLIP_DOXYGEN doxygen)
if(SLIP_DOXYGEN)
  list(TRANSFORM layers PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE SLIP_REFERENCE_INPUT)
  list(JOIN SLIP_REFERENCE_INPUT " " SLIP_REFERENCE_INPUT)
  configure_file(docs/Doxyfile.in Doxyfile @ONLY)
  add_custom_target(reference VERBATIM COMMENT "Pages of the public headers, in reference/html"
    COMMAND ${SLIP_DOXYGEN} ${PROJECT_BINARY_DIR}/Doxyfile)
endif()

if(PROJECT_IS_TOP_LEVEL)
  add_custom_target(uninstall VERBATIM COMMENT "Removing what the last install put there"
    COMMAND ${CMAKE_COMMAND} -D MANIFEST=${PROJECT_BINARY_DIR}/install_manifest.txt
      -P ${PROJECT_SOURCE_DIR}/cmake/uninstall.cmake)
endif()
