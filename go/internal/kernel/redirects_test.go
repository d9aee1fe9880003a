package kernel

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// A redirect of the gateway changes no route of ours, even where the kernel would follow it: when a container with
// inherited forwarding turns that off, `conf.all.accept_redirects` becomes 1.
func TestRedirectsAreDropped(t *testing.T) {
	nettest.InNetwork(t)
	neighbour := netip.MustParseAddr("10.214.0.9")
	asGateway := nettest.Moved(t, "egress-end", nettest.EgressNet, nettest.Gateway, neighbour)
	nettest.Settle(t)
	must.Succeed(t, os.WriteFile(filepath.Join(SystemSettings, "net/ipv4/conf/all/accept_redirects"), []byte("1"), 0))
	// The kernel only follows to a gateway with a known MAC address.
	known := netlink.Neigh{
		LinkIndex: nettest.Link(t, "egress").Attrs().Index, IP: neighbour.AsSlice(), State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9},
	}
	must.Succeed(t, netlink.NeighSet(&known))
	redirected := func(destination netip.Addr) bool {
		t.Helper()
		asGateway(func() { sendRedirect(t, destination, neighbour) })
		routes := must.Get[[]netlink.Route](t)(netlink.RouteGet(destination.AsSlice()))
		return routes[0].Gw.Equal(neighbour.AsSlice())
	}
	if !redirected(nettest.World) {
		t.Fatal("without our table, the kernel does not follow a redirect either: this test shows nothing")
	}
	limits := nettest.SmallLimits()
	must.Succeed(t, newLimitFilter(limits).installWithSix())
	if redirected(nettest.World.Next()) {
		t.Error("a redirect has changed a route")
	}
}

// sendRedirect sends a redirect from the gateway to the container, to another gateway for a destination (RFC 792).
// It is about an echo reply, for which the kernel needs no socket.
func sendRedirect(t *testing.T, destination, to netip.Addr) {
	t.Helper()
	socket := must.Get[int](t)(unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP))
	defer unix.Close(socket)
	must.Succeed(t, unix.Bind(socket, &unix.SockaddrInet4{Addr: nettest.Gateway.As4()}))
	const forHost = 1
	message := append([]byte{redirectType, forHost, 0, 0}, to.AsSlice()...)
	about := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_ICMP, 0, 0}
	about = append(append(about, nettest.Primary.AsSlice()...), destination.AsSlice()...)
	message = append(message, append(about, make([]byte, 8)...)...)
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	must.Succeed(t, unix.Sendto(socket, message, 0, &unix.SockaddrInet4{Addr: nettest.Primary.As4()}))
}

// checksum returns the Internet checksum (RFC 1071).
func checksum(message []byte) uint16 {
	var sum uint32
	for ; len(message) > 1; message = message[2:] {
		sum += uint32(binary.BigEndian.Uint16(message))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
