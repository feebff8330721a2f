// SPDX-License-Identifier: GPL-2.0-or-later
// Waiting for operations: without exceptions, and not for ever.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <utility>

#include "tcpmigrate/result.hpp"

namespace mobility {

/// Given to an operation: its error is part of what it returns, instead of thrown.
inline constexpr auto kNoThrow = boost::asio::as_tuple(boost::asio::use_awaitable);

/// What an operation comes to, or ETIMEDOUT when the timer ends before: by its time, or
/// since somebody has cancelled it. The operation is cancelled then and has ended when
/// this returns.
template <typename T>
boost::asio::awaitable<tcpmigrate::Result<T>> within(
    boost::asio::steady_timer& timer, boost::asio::awaitable<tcpmigrate::Result<T>> operation) {
    using boost::asio::experimental::awaitable_operators::operator||;
    auto first = co_await (std::move(operation) || timer.async_wait(kNoThrow));
    if (first.index() == 0) {
        co_return std::get<0>(std::move(first));
    }
    co_return tcpmigrate::make_error(ETIMEDOUT, "no answer in time");
}

/// The same with a timer of its own.
template <typename T>
boost::asio::awaitable<tcpmigrate::Result<T>> within(
    boost::asio::steady_timer::duration limit,
    boost::asio::awaitable<tcpmigrate::Result<T>> operation) {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, limit);
    co_return co_await within(timer, std::move(operation));
}

}  // namespace mobility
