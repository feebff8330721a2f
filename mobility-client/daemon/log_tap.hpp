// SPDX-License-Identifier: GPL-2.0-or-later
// A sink of the log that hands each line on, as it is written and without its end.
#pragma once

#include <spdlog/details/null_mutex.h>
#include <spdlog/sinks/base_sink.h>

#include <functional>
#include <string>
#include <utility>

namespace mobility::client {

class LogTap final : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
  public:
    using Tell = std::function<void(std::string line)>;

    explicit LogTap(Tell tell) : tell_(std::move(tell)) {}

  protected:
    void sink_it_(const spdlog::details::log_msg& message) override {
        spdlog::memory_buf_t text;
        formatter_->format(message, text);
        std::string line(text.data(), text.size());
        while (!line.empty() && line.back() == '\n') {
            line.pop_back();
        }
        tell_(std::move(line));
    }
    void flush_() override {}

  private:
    Tell tell_;
};

}  // namespace mobility::client
