package kernel

import (
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connection is an open TCP connection to a host, as the kernel knows it.
type Connection struct {
	Sent, Received uint64 // octets
	// Rest is for how long nothing has been sent or received, if the host had the last word and all is acknowledged.
	// Otherwise it is 0: somebody waits for an answer.
	Rest          time.Duration
	local, remote net.TCPAddr
}

// Cookie identifies a connection as long as the kernel runs.
type Cookie [2]uint32

// Sources returns the addresses that have routing tables of their own: a sibling connects to hosts from these alone.
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

// Connections returns the established connections from some sources.
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

// rest compares times that the kernel counts in ticks of up to 10 ms. An acknowledgement after data that came in the same tick
// as data that went says that the latter was later.
func rest(socket *netlink.Socket, info *netlink.TCPInfo) time.Duration {
	answered := info.Last_data_recv < info.Last_data_sent ||
		info.Last_data_recv == info.Last_data_sent && info.Last_ack_recv >= info.Last_data_recv
	if !answered || info.Bytes_received == 0 || socket.RQueue+socket.WQueue+info.Unacked > 0 {
		return 0
	}
	return time.Duration(info.Last_data_recv) * time.Millisecond
}

// Close ends a connection as if the host had reset it. Its program closes the other one, to an agent, in an orderly way.
func (c Connection) Close() error { return netlink.SocketDestroy(&c.local, &c.remote) }
