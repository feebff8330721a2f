// SPDX-License-Identifier: GPL-2.0-or-later
#include "listening.hpp"

#include <boost/asio/ip/v6_only.hpp>
#include <string>

namespace mobility::server {

using boost::asio::ip::address_v6;
using boost::asio::ip::tcp;

tcpmigrate::Result<tcp::acceptor> open_acceptor(boost::asio::io_context& io,
                                                const tcp::endpoint& where) {
    boost::system::error_code failed;
    tcp::acceptor acceptor(io);
    acceptor.open(where.protocol(), failed);
    if (!failed) {
        acceptor.set_option(tcp::acceptor::reuse_address(true), failed);
    }
    if (!failed && where.address().is_v6()) {
        const boost::asio::ip::v6_only only(where.address() != address_v6::any());
        acceptor.set_option(only, failed);
    }
    if (!failed) {
        acceptor.bind(where, failed);
    }
    if (!failed) {
        acceptor.listen(tcp::acceptor::max_listen_connections, failed);
    }
    if (failed) {
        return tcpmigrate::make_error(failed.value(),
                                      "cannot listen at " + where.address().to_string() + " port " +
                                          std::to_string(where.port()) + ": " + failed.message());
    }
    return acceptor;
}

}  // namespace mobility::server
