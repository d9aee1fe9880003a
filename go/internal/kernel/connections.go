package kernel

import (
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connection is an open TCP connection to a host, from the kernel's tables.
type Connection struct {
	Sent, Received uint64 // bytes
	// Rest is how long the connection has been idle, if the host sent last and everything is acknowledged.
	// Otherwise it is 0: one end awaits an answer.
	Rest          time.Duration
	local, remote net.TCPAddr
}

// Cookie identifies a connection until the kernel restarts.
type Cookie [2]uint32

// Sources returns the addresses with their own routing tables: the only sources of connections to hosts.
func Sources() (map[string]bool, error) {
	sources := map[string]bool{}
	rules, err := netlink.RuleList(unix.AF_INET)
	for _, rule := range rules {
		if rule.Src != nil {
			sources[rule.Src.IP.String()] = true
		}
	}
	return sources, err
}

// Connections returns the established connections from these sources.
func Connections(sources map[string]bool) (map[Cookie]Connection, error) {
	sockets, err := netlink.SocketDiagTCPInfo(unix.AF_INET)
	connections := map[Cookie]Connection{}
	for _, socket := range sockets {
		id, info := socket.InetDiagMsg.ID, socket.TCPInfo
		if socket.InetDiagMsg.State == netlink.TCP_ESTABLISHED && info != nil && sources[id.Source.String()] {
			connections[id.Cookie] = Connection{
				Sent: info.Bytes_sent, Received: info.Bytes_received, Rest: rest(socket.InetDiagMsg, info),
				local:  net.TCPAddr{IP: id.Source, Port: int(id.SourcePort)},
				remote: net.TCPAddr{IP: id.Destination, Port: int(id.DestinationPort)},
			}
		}
	}
	return connections, err
}

// rest compares times that the kernel counts in ticks of up to 10 ms. If the host's data and ours have the same
// tick, a later acknowledgement shows that ours was later.
func rest(socket *netlink.Socket, info *netlink.TCPInfo) time.Duration {
	answered := info.Last_data_recv < info.Last_data_sent ||
		info.Last_data_recv == info.Last_data_sent && info.Last_ack_recv >= info.Last_data_recv
	if !answered || info.Bytes_received == 0 || socket.RQueue+socket.WQueue+info.Unacked > 0 {
		return 0
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond
}

// Close ends a connection as if the host had reset it. The program then closes the agent's connection orderly.
func (c Connection) Close() error { return netlink.SocketDestroy(&c.local, &c.remote) }
