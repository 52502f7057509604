#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace slip {

/// Samples of two classes as compressed sparse rows: row r has the entries begin[r] up to
/// begin[r + 1], columns ascending.
struct SparseSet {
  std::vector<std::size_t> begin{0};
  std::vector<std::uint32_t> columns;  // from 0
  std::vector<float> values;
  std::vector<std::uint8_t> labels;  // 1: the class whose label is the greater number

  std::size_t size() const { return labels.size(); }
};

struct SparseData {
  std::uint32_t features = 0;  // columns of the wider set
  SparseSet train;
  SparseSet test;
};

/// Where the samples of `--task libsvm:...` are; an empty `test` means a fifth of `train`.
struct LibsvmFiles {
  std::filesystem::path train;
  std::filesystem::path test;
};

/// From what follows "libsvm:": `FILE`, whose test file is looked for beside it (FILE.t, or for
/// FILE.trn FILE.tst, each also .gz or .xz), or `train=FILE,test=FILE`. Throws
/// Error(invalid_argument).
LibsvmFiles libsvm_files(std::string_view settings);

/// Reads LIBSVM text, plain, gzip or xz: lines of `LABEL INDEX:VALUE INDEX:VALUE ...`, indices from
/// 1 and ascending, labels two distinct numbers, the same in both files. Without a test file it
/// holds out a fifth of the rows, always the same ones.
/// Memory grows with what the files hold, never with a number in them. Throws Error: not_found, io
/// or bad_data, one line with the file, its line and what is wrong.
SparseData read_libsvm(const LibsvmFiles& files);

}  // namespace slip
