# Packages: cpack -G DEB or -G RPM in the build folder. One for each component of the install, as
# SlipInstall.cmake names them; the library's is named after its SONAME, so that two can be there.
set(soversion ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
set(CPACK_PACKAGE_NAME slipstream)
set(CPACK_PACKAGE_VENDOR Slipstream)
set(CPACK_PACKAGE_CONTACT "Slipstream developers <slipstream@localhost>")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL runtime development tools)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "The library.")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "Headers for C and C++.")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "The slip program.")
set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)
set(CPACK_COMPONENT_TOOLS_DEPENDS runtime)
if(SLIP_HAVE_TORCH)
  list(APPEND CPACK_COMPONENTS_ALL models)
  set(CPACK_COMPONENT_MODELS_DESCRIPTION "Models of images for slip train, through LibTorch.")
  set(CPACK_COMPONENT_MODELS_DEPENDS tools)
endif()

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/lib)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME libslipstream${soversion})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS libucx0)  # loaded at run time
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libslipstream-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME slipstream-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS slipstream-models)
set(CPACK_DEBIAN_MODELS_PACKAGE_NAME slipstream-models)
set(CPACK_DEBIAN_MODELS_PACKAGE_SECTION science)

set(CPACK_RPM_COMPONENT_INSTALL ON)
set(CPACK_RPM_FILE_NAME RPM-DEFAULT)
set(CPACK_RPM_PACKAGE_LICENSE Apache-2.0)
set(CPACK_RPM_RUNTIME_PACKAGE_NAME libslipstream${soversion})
set(CPACK_RPM_DEVELOPMENT_PACKAGE_NAME slipstream-devel)
set(CPACK_RPM_TOOLS_PACKAGE_NAME slipstream-tools)
set(CPACK_RPM_MODELS_PACKAGE_NAME slipstream-models)
set(CPACK_RPM_DEVELOPMENT_PACKAGE_REQUIRES "libslipstream${soversion} = ${PROJECT_VERSION}")
set(CPACK_RPM_TOOLS_PACKAGE_REQUIRES "libslipstream${soversion} = ${PROJECT_VERSION}")
# Folders of every system are not ours.
set(CPACK_RPM_EXCLUDE_FROM_AUTO_FILELIST_ADDITION
  /usr/share/man /usr/share/man/man1 /usr/share/bash-completion
  /usr/share/bash-completion/completions /usr/lib/cmake /usr/lib/pkgconfig)

# Without what a debugger needs, as packages are; the install keeps it.
set(CPACK_STRIP_FILES ON)
include(CPack)
