// SPDX-License-Identifier: GPL-2.0-or-later
// How libtcpmigrate reports failure: every fallible call returns a Result<T>,
// which holds either the value or an Error. The library throws nothing of its
// own (only std::bad_alloc can pass through). The interface is the part of
// C++23's std::expected that is needed here, so that it can be replaced by it.
#pragma once

#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <variant>

namespace tcpmigrate {

/// What went wrong. `code` is an errno value in the generic category, for
/// programs; `message` is a sentence for people, it names the thing concerned.
struct Error {
    std::error_code code;
    std::string message;

    /// True if the errno value is `value` (ENOENT, EPERM, ...).
    [[nodiscard]] bool is(int value) const {
        return code == std::error_code(value, std::generic_category());
    }
};

/// An Error from an errno value (positive) and a sentence.
[[nodiscard]] inline Error make_error(int errno_value, std::string message) {
    return Error{std::error_code(errno_value, std::generic_category()), std::move(message)};
}

/// Either a T or an Error. Reading the value of a failed Result is undefined,
/// as with std::expected: test it first.
template <typename T>
class [[nodiscard]] Result {
  public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

    explicit operator bool() const { return state_.index() == 0; }
    T& operator*() & { return *std::get_if<0>(&state_); }
    const T& operator*() const& { return *std::get_if<0>(&state_); }
    T&& operator*() && { return std::move(*std::get_if<0>(&state_)); }
    T* operator->() { return std::get_if<0>(&state_); }
    const T* operator->() const { return std::get_if<0>(&state_); }
    [[nodiscard]] const Error& error() const { return *std::get_if<1>(&state_); }

  private:
    std::variant<T, Error> state_;
};

/// Success without a value, or an Error.
template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}

    explicit operator bool() const { return !error_; }
    [[nodiscard]] const Error& error() const { return *error_; }

  private:
    std::optional<Error> error_;
};

}  // namespace tcpmigrate
