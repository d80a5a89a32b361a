# libleaky_ext: the operators and the C++ API (csrc/leaky_ext.h), and how it is installed and found again.
include(GNUInstallDirs)
find_package(Torch REQUIRED)
find_package(OpenMP REQUIRED)  # at::parallel_for is an OpenMP loop in the caller

# The dialect that torch's headers need, as its targets say it; kernels are content with C++17.
add_library(leaky_ext SHARED ${torch_sources} csrc/leaky_ext.cpp $<TARGET_OBJECTS:leaky_ext_kernels>)
add_library(leaky_ext::leaky_ext ALIAS leaky_ext)
target_compile_features(leaky_ext PUBLIC cxx_std_20)
target_link_libraries(leaky_ext PUBLIC ${TORCH_LIBRARIES} PRIVATE OpenMP::OpenMP_CXX)
target_include_directories(leaky_ext PUBLIC
  $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(leaky_ext PROPERTIES
  CXX_VISIBILITY_PRESET hidden PUBLIC_HEADER csrc/leaky_ext.h INSTALL_RPATH_USE_LINK_PATH ON)

if(LEAKY_EXT_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    file(STRINGS csrc/cuda/architectures.txt CMAKE_CUDA_ARCHITECTURES)
  endif()
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  target_sources(leaky_ext PRIVATE ${cuda_sources})
  list(JOIN CMAKE_CUDA_ARCHITECTURES " " architectures)
  target_compile_definitions(leaky_ext PRIVATE LEAKY_WITH_CUDA "LEAKY_CUDA_ARCHITECTURES=\"${architectures}\"")
  target_link_libraries(leaky_ext PRIVATE CUDA::cudart)
endif()

install(TARGETS leaky_ext EXPORT leaky_ext
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/leaky_ext)
install(EXPORT leaky_ext NAMESPACE leaky_ext:: FILE leaky_extTargets.cmake DESTINATION ${package_folder})
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/leaky_extConfigVersion.cmake COMPATIBILITY SameMajorVersion)
configure_file(cmake/leaky_extConfig.cmake.in leaky_extConfig.cmake @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/leaky_extConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/leaky_extConfigVersion.cmake
  DESTINATION ${package_folder})
