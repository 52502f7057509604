#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "slipstream/base/time.h"

namespace slip::cli {

/// Answers questions in a process of its own: no driver survives a fork, and one may hang or crash.
/// The process is there from the start on, before its parent loads a driver; where it has ended,
/// the next question starts another one. It ends with this, and with its parent.
class Respondent {
 public:
  using Answer = std::function<std::string(const std::string& question)>;

  /// `answer` is called there. `name` says who it is in errors. Throws Error.
  Respondent(std::string name, Answer answer, Duration limit);
  ~Respondent();
  Respondent(const Respondent&) = delete;
  Respondent& operator=(const Respondent&) = delete;

  /// `question` is not empty. Throws the Error that `answer` has thrown there; Error(timeout) where
  /// there is none within the limit, and the process is killed; Error(io) where it has crashed.
  std::string ask(const std::string& question);

 private:
  void start();
  [[noreturn]] void serve(int questions) const;
  std::string end();

  const std::string name_;
  const Answer answer_;
  const Duration limit_;
  pid_t process_ = -1;  // -1: none
  int socket_ = -1;     // to it
};

}  // namespace slip::cli
