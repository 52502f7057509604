#pragma once

// What tests of readers of files share.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filtering_stream.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "slipstream/base/error.h"

namespace slip {

template <class Compressor>
std::string packed(const std::string& bytes) {
  std::ostringstream out;
  boost::iostreams::filtering_ostream stream;
  stream.push(Compressor());
  stream.push(out);
  stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  stream.reset();
  return out.str();
}
inline std::string gzip(const std::string& bytes) {
  return packed<boost::iostreams::gzip_compressor>(bytes);
}
inline std::string xz(const std::string& bytes) {
  return packed<boost::iostreams::lzma_compressor>(bytes);
}

/// A test with a folder that is gone at its end.
class FolderTest : public testing::Test {
 protected:
  FolderTest() {
    std::string pattern = testing::TempDir() + "slip-files-XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~FolderTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write_file(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
    return folder_ / name;
  }

  std::filesystem::path folder_;
};

/// That `call` throws an Error of this code, whose one line is as `says`.
template <class Call>
void expect_refused(Call call, Code code, const testing::Matcher<std::string>& says) {
  try {
    call();
    ADD_FAILURE() << "no Error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(std::string(error.what()),
                testing::AllOf(says, testing::Not(testing::HasSubstr("\n"))));
  }
}

}  // namespace slip
