#include "slipstream/tools/slip/pci_path.h"

#include <cstdint>
#include <string>
#include <vector>

#include "file_support.h"

namespace slip::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A configuration space of PCI Express.
class Config {
 public:
  /// An extended capability, and where the next one is.
  Config& with(std::size_t at, std::uint16_t id, std::size_t next) {
    put(at, id);
    put(at + 2, static_cast<std::uint16_t>(1 | next << 4));
    return *this;
  }
  /// Access Control Services that could do all, and what they are told to.
  Config& with_acs(std::size_t at, std::uint16_t control, std::size_t next = 0) {
    put(at + 4, 0x7f);
    put(at + 6, control);
    return with(at, 0x000d, next);
  }
  Config& cut(std::size_t bytes) {
    bytes_.resize(bytes);
    return *this;
  }

  const std::string& bytes() const { return bytes_; }
  Acs acs() const { return acs_of(std::as_bytes(std::span(bytes_))); }

 private:
  void put(std::size_t at, std::uint16_t value) {
    bytes_[at] = static_cast<char>(value & 0xff);
    bytes_[at + 1] = static_cast<char>(value >> 8);
  }
  std::string bytes_ = std::string(4096, '\0');
};

constexpr std::uint16_t source_validation = 1, translation_blocking = 2, request_redirect = 4,
                        completion_redirect = 8, upstream_forwarding = 16, egress_control = 32,
                        direct_translated = 64;

TEST(PciPath, AcsIsFoundAmongTheCapabilitiesOfABridge) {
  EXPECT_EQ(Config().acs(), Acs::absent);
  EXPECT_EQ(Config().with(0x100, 1, 0x148).with(0x148, 0x19, 0).acs(), Acs::absent);
  EXPECT_EQ(Config().with_acs(0x100, request_redirect).acs(), Acs::redirects);
  EXPECT_EQ(Config().with(0x100, 1, 0xff8).with_acs(0xff8, request_redirect).acs(), Acs::redirects);
}

TEST(PciPath, WhatRedirectsIsToldFromWhatOnlyChecks) {
  const auto with = [](std::uint16_t control) { return Config().with_acs(0x100, control).acs(); };
  EXPECT_EQ(with(0), Acs::passes);
  EXPECT_EQ(
      with(source_validation | translation_blocking | upstream_forwarding | direct_translated),
      Acs::passes);
  for (const std::uint16_t one : {request_redirect, completion_redirect, egress_control}) {
    EXPECT_EQ(with(one | source_validation), Acs::redirects) << one;
  }
}

TEST(PciPath, BytesThatSayNothingAreUnknown) {
  const Config whole = Config().with(0x100, 1, 0x148).with_acs(0x148, request_redirect);
  EXPECT_EQ(Config(whole).cut(0).acs(), Acs::unknown);
  EXPECT_EQ(Config(whole).cut(64).acs(), Acs::unknown) << "what users see who are not root";
  EXPECT_EQ(Config(whole).cut(256).acs(), Acs::absent) << "conventional PCI";
  EXPECT_EQ(Config(whole).cut(0x14f).acs(), Acs::absent) << "half a capability";
  EXPECT_EQ(Config().with(0x100, 1, 0x148).with(0x148, 3, 0x100).acs(), Acs::unknown) << "a circle";
  EXPECT_EQ(Config().with(0x100, 1, 0x80).acs(), Acs::absent) << "not among the extended";
  EXPECT_EQ(acs_of(std::vector<std::byte>(4096, std::byte{0xff})), Acs::unknown) << "no answer";
}

/// Two devices below a switch of a made-up /sys, and one below another root port.
class PciPathOfDevices : public FolderTest {
 protected:
  PciPathOfDevices() {
    add("0000:13:00.0", upstream_ / "0000:12:00.0");
    fs::create_directories(folder_ / "class/infiniband/mlx5_0");
    fs::create_directories(folder_ / "class/net/eth0");
    link(upstream_ / "0000:12:01.0/0000:14:00.0", "class/infiniband/mlx5_0/device");
    link("devices/pci0000:20/0000:20:01.0/0000:21:00.0", "class/net/eth0/device");
  }

  void add(const std::string& device, const fs::path& bridge) const {
    link(bridge / device, "bus/pci/devices/" + device);
  }
  void link(const fs::path& device, const fs::path& name) const {
    fs::create_directories(folder_ / device);
    fs::create_directories((folder_ / name).parent_path());
    fs::create_directory_symlink(folder_ / device, folder_ / name);
  }
  void configure(const fs::path& bridge, const Config& config) const {
    (void)write_file(bridge / "config", config.bytes());
  }
  std::string between(const std::string& nic) const {
    return acs_between(folder_, "0000:13:00.0", nic);
  }

  const fs::path root_port_ = "devices/pci0000:10/0000:10:01.0";
  const fs::path upstream_ = root_port_ / "0000:11:00.0";
};

TEST_F(PciPathOfDevices, BridgesThatRedirectAreNamed) {
  configure(upstream_ / "0000:12:00.0", Config());
  configure(upstream_ / "0000:12:01.0", Config().with_acs(0x100, source_validation));
  configure(root_port_, Config().with_acs(0x100, request_redirect));  // above both
  EXPECT_EQ(between("mlx5_0"), "no ACS in the way");
  configure(upstream_ / "0000:12:00.0", Config().with_acs(0x100, request_redirect));
  EXPECT_THAT(between("mlx5_0"), HasSubstr("ACS of 0000:12:00.0 sends what they exchange by way"));
  configure(upstream_ / "0000:12:01.0", Config().with_acs(0x100, egress_control));
  EXPECT_THAT(between("mlx5_0"), HasSubstr("ACS of 0000:12:00.0, 0000:12:01.0 sends"));
}

TEST_F(PciPathOfDevices, WithoutTheRightToReadTheyAreUnknown) {
  configure(upstream_ / "0000:12:00.0", Config());
  EXPECT_EQ(between("mlx5_0"), "ACS between them unknown: run as root") << "no file";
  configure(upstream_ / "0000:12:01.0", Config().cut(64));
  EXPECT_EQ(between("mlx5_0"), "ACS between them unknown: run as root");
}

TEST_F(PciPathOfDevices, DevicesThatShareNoBridgeHaveNothingBetweenThem) {
  EXPECT_EQ(between("eth0"), "");
  EXPECT_EQ(between("lo"), "");
  EXPECT_EQ(acs_between(folder_, "0000:99:00.0", "mlx5_0"), "");
}

}  // namespace
}  // namespace slip::cli
