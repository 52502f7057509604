from spack.package import *


class Slipstream(CMakePackage):
    """Communication runtime for training that must not wait for its slowest worker."""

    license("Apache-2.0")

    # Built from a checkout: spack dev-build slipstream@0.1.0
    version("0.1.0")

    # One for each SLIP_WITH_* of the build.
    variant("torch", default=False, description="Models through LibTorch, for slip train")
    variant("ucx", default=True, description="Workers of several hosts, through UCX")
    variant("verbs", default=True, description="Workers of several hosts, through RDMA verbs")
    variant("pmix", default=True, description="Workers that srun or mpirun starts, through PMIx")
    variant("mpi", default=False, description="World::from_mpi, in a library of its own")
    variant("cuda", default=False, description="Parameters in GPU memory, through CUDA")
    variant("nccl", default=False, description="Groups of GPUs that repeat, through NCCL")

    variant("shared", default=True, description="A shared library")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("boost@1.74:+context+iostreams")
    depends_on("cli11")
    depends_on("fmt")
    depends_on("highway")
    depends_on("hwloc@2.5:")
    depends_on("nlohmann-json")
    depends_on("spdlog+fmt_external")
    depends_on("tomlplusplus")
    depends_on("py-torch", when="+torch")
    depends_on("openssl")
    depends_on("ucx@1.13:", when="+ucx")
    depends_on("rdma-core@32:", when="+verbs")
    depends_on("pmix@3:", when="+pmix")
    depends_on("mpi", when="+mpi")
    depends_on("cuda@12.1:", when="+cuda")
    depends_on("nccl@2.18:", when="+nccl")

    conflicts("+nccl", when="~cuda", msg="NCCL averages in memory of GPUs")
    conflicts("%gcc@:11", msg="C++20 as Slipstream uses it needs GCC 12")

    def cmake_args(self):
        return [
            self.define_from_variant("SLIP_WITH_TORCH", "torch"),
            self.define_from_variant("SLIP_WITH_UCX", "ucx"),
            self.define_from_variant("SLIP_WITH_VERBS", "verbs"),
            self.define_from_variant("SLIP_WITH_PMIX", "pmix"),
            self.define_from_variant("SLIP_WITH_MPI", "mpi"),
            self.define_from_variant("SLIP_WITH_CUDA", "cuda"),
            self.define_from_variant("SLIP_WITH_NCCL", "nccl"),
            self.define_from_variant("BUILD_SHARED_LIBS", "shared"),
            self.define("SLIP_BUILD_TESTS", False),
        ]
