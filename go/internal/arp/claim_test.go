package arp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/must"
	"clawker-fw/internal/nettest"
)

// A claim adds the address to the interface on the agent network, announces it there, and is recorded.
func TestClaim(t *testing.T) {
	nettest.InNetwork(t)
	root := t.TempDir()
	hear := listenForARP(t, "agents-end")

	must.Succeed(t, Claim(root, nettest.NewResolver(), 0))

	expectHolders(t, "agents")
	for _, target := range []netip.Addr{nettest.Service, nettest.OnAgents} {
		if want := arpRequest(nettest.Link(t, "agents").Attrs().HardwareAddr, nettest.Service, target); !bytes.Equal(hear(), want) {
			t.Errorf("what was announced is not the address, with a request for %s", target)
		}
	}
	if !Claimed(root) {
		t.Error("it is not recorded")
	}
	if !slices.Contains(kernel.Addresses(), nettest.Service.String()) {
		t.Errorf("others can find %v", kernel.Addresses())
	}
}

// Agents learn the new holder of the service address, and the MAC address of a container, even if they ignore
// gratuitous requests. So does a gateway that has never heard of an address.
func TestAnnouncementsReachWhoDropsGratuitousOnes(t *testing.T) {
	for _, drops := range []string{"0", "1"} {
		nettest.InNetwork(t)
		asAgent := nettest.Moved(t, "agents-end", nettest.AgentNet, nettest.Agent)
		asGateway := nettest.Moved(t, "egress-end", nettest.EgressNet, nettest.Gateway)
		nettest.Settle(t)
		own := map[string]net.HardwareAddr{}
		for _, name := range []string{"agents", "egress"} {
			own[name] = nettest.Link(t, name).Attrs().HardwareAddr
		}
		drop := func() {
			must.Succeed(t, os.WriteFile(filepath.Join(kernel.SystemSettings, "net/ipv4/conf/all/drop_gratuitous_arp"), []byte(drops), 0))
		}
		asAgent(func() {
			drop()
			for _, known := range []netip.Addr{nettest.Service, nettest.OnAgents} {
				before := netlink.Neigh{
					LinkIndex: nettest.Link(t, "agents-end").Attrs().Index, IP: known.AsSlice(),
					HardwareAddr: net.HardwareAddr{2, 0x42, 0, 0, 0, 1}, State: netlink.NUD_REACHABLE,
				}
				must.Succeed(t, netlink.NeighSet(&before))
			}
		})
		asGateway(drop)
		sibling := nettest.NewResolver()
		must.Succeed(t, kernel.Shape(nettest.NewSibling()))
		sibling.Addresses, sibling.Interfaces = nettest.NewSibling().Addresses, nettest.NewSibling().Interfaces

		root := t.TempDir()
		must.Succeed(t, Claim(root, sibling, 1250*time.Millisecond))
		must.Succeed(t, must.Get[Announcer](t)(NewAnnouncer()).AnnounceOwn(root, sibling))

		expect := func(name string, address netip.Addr) {
			t.Helper()
			neighbours, err := netlink.NeighList(nettest.Link(t, name+"-end").Attrs().Index, unix.AF_INET)
			if err != nil || !slices.ContainsFunc(neighbours, func(neighbour netlink.Neigh) bool {
				return neighbour.IP.Equal(address.AsSlice()) && bytes.Equal(neighbour.HardwareAddr, own[name])
			}) {
				t.Errorf("with drop_gratuitous_arp=%s, %s is not at %s, but %v (%v)", drops, address, own[name], neighbours, err)
			}
		}
		asAgent(func() { expect("agents", nettest.Service); expect("agents", nettest.OnAgents) })
		asGateway(func() { expect("egress", nettest.Guarded); expect("egress", nettest.Exempt) })
	}
}

// A claim without an interface is an error and leaves no record, which would keep the container from starting
// again.
func TestClaimThatFails(t *testing.T) {
	nettest.InNetwork(t)
	elsewhere := boot.Address{Address: netip.MustParseAddr("10.215.0.53"), Subnet: netip.MustParsePrefix("10.215.0.0/24")}
	for _, sibling := range []boot.Sibling{nettest.NewSibling(), {Name: "coredns", Service: &elsewhere}} {
		root := t.TempDir()

		if err := Claim(root, sibling, 0); err == nil {
			t.Errorf("%s has claimed an address", sibling.Name)
		}

		if Claimed(root) {
			t.Errorf("%s has left a record", sibling.Name)
		}
	}
}

// A released address is on the loopback interface, where ARP does not find it, and its record is removed. Repeated
// claims and releases change nothing.
func TestRelease(t *testing.T) {
	nettest.InNetwork(t)
	root := t.TempDir()
	for range 2 {
		must.Succeed(t, Claim(root, nettest.NewResolver(), 0))
		expectHolders(t, "agents")
	}
	for range 2 {
		must.Succeed(t, Claim(root, nettest.NewResolver(), 0))
		if !slices.Contains(kernel.Addresses(), nettest.Service.String()) {
			t.Errorf("others can find %v", kernel.Addresses())
		}
		for range 2 {
			must.Succeed(t, Release(root, nettest.NewResolver()))
			expectHolders(t, "lo host")
		}
		if Claimed(root) || slices.Contains(kernel.Addresses(), nettest.Service.String()) {
			t.Errorf("it is recorded: %t, others can find %v", Claimed(root), kernel.Addresses())
		}
		if got, err := kernel.LinkHolding(nettest.Service); !errors.Is(err, kernel.ErrNoInterface) {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

// A release of an address that isn't held changes no interface, but still removes a record. Envoy has no service
// address to release.
func TestReleaseOfNothing(t *testing.T) {
	nettest.InNetwork(t)
	root := t.TempDir()
	must.Write(t, root, must.Tree{"state/claimed": ""})

	must.Succeed(t, Release(root, nettest.NewResolver()))

	expectHolders(t)
	if Claimed(root) {
		t.Error("the record is still there")
	}
	if err := Release(root, boot.Sibling{Name: "envoy"}); err == nil {
		t.Error("Envoy has released an address")
	}
}

// holders lists the interfaces that hold the service address, with the scope if it is not universal.
func holders(t *testing.T) []string {
	t.Helper()
	addresses := must.Get[[]netlink.Addr](t)(netlink.AddrList(nil, unix.AF_INET))
	var texts []string
	for _, address := range addresses {
		if !address.IP.Equal(nettest.Service.AsSlice()) {
			continue
		}
		link := must.Get[netlink.Link](t)(netlink.LinkByIndex(address.LinkIndex))
		name := link.Attrs().Name
		if scope := netlink.Scope(address.Scope); scope != netlink.SCOPE_UNIVERSE {
			name += " " + scope.String()
		}
		texts = append(texts, name)
	}
	slices.Sort(texts)
	return texts
}

// expectHolders fails unless exactly these interfaces hold the service address.
func expectHolders(t *testing.T, want ...string) {
	t.Helper()
	if got := holders(t); !slices.Equal(got, want) {
		t.Errorf("held by %q, expected %q", got, want)
	}
}

// arpProtocol is unix.ETH_P_ARP in network byte order.
const arpProtocol = unix.ETH_P_ARP<<8&0xff00 | unix.ETH_P_ARP>>8

// listenForARP opens a socket that receives ARP at the other end of an interface.
func listenForARP(t *testing.T, name string) func() []byte {
	t.Helper()
	socket := must.Get[int](t)(unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(arpProtocol)))
	t.Cleanup(func() { unix.Close(socket) })
	address := &unix.SockaddrLinklayer{Protocol: arpProtocol, Ifindex: nettest.Link(t, name).Attrs().Index}
	must.Succeed(t, unix.Bind(socket, address))
	must.Succeed(t, unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}))
	return func() []byte {
		frame := make([]byte, 128)
		size, err := unix.Read(socket, frame)
		if err != nil {
			t.Fatalf("nothing was announced: %v", err)
		}
		return frame[:size]
	}
}

// silence keeps the kernel from answering ARP at the other end of a link, which is in the same namespace.
func silence(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		must.Succeed(t, netlink.LinkSetARPOff(nettest.Link(t, name)))
	}
}
