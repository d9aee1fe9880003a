// Package arp takes over, announces and releases addresses that Docker doesn't manage, and detects other holders.
package arp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clawker-fw/internal/boot"
	"clawker-fw/internal/kernel"
	"clawker-fw/internal/volume"
)

const announceEvery = 100 * time.Millisecond

// ClaimRecord returns the path of a file that exists while this container holds the service address. A restarted
// container has a new network namespace and the engine doesn't know the address, so serve takes it again.
func ClaimRecord(root string) string { return filepath.Join(root, "state", "claimed") }

func Claimed(root string) bool {
	_, err := os.Stat(ClaimRecord(root))
	return err == nil
}

// Claim takes over the service address and announces it for some time, because a neighbour entry that has just
// changed is locked for a second.
//
// Without an interface for the address it leaves no record, which would keep serve from ever starting again.
func Claim(root string, sibling boot.Sibling, announce time.Duration) error {
	link, err := serviceLink(sibling)
	if err != nil {
		return err
	}
	if err := volume.WriteFile(ClaimRecord(root), []byte("service address\n")); err != nil {
		return err
	}
	if err := kernel.AddAddress(link, sibling.Service.Address, netlink.SCOPE_UNIVERSE); err != nil {
		return err
	}
	announcer, err := NewAnnouncer()
	if err != nil {
		return err
	}
	for end := time.Now().Add(announce); ; time.Sleep(announceEvery) {
		if err := announcer.announce(link, *sibling.Service, askedBeside(sibling, *sibling.Service)); err != nil {
			return err
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// TakeClaimed takes the service address again after a restart.
func TakeClaimed(root string, sibling boot.Sibling) error {
	if !Claimed(root) {
		return nil
	}
	link, err := serviceLink(sibling)
	if err != nil {
		return err
	}
	return kernel.AddAddress(link, sibling.Service.Address, netlink.SCOPE_UNIVERSE)
}

// Announcer is a socket for announcements. Only opening it needs CAP_NET_RAW.
type Announcer int

func NewAnnouncer() (Announcer, error) {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // send only
	if err != nil {
		err = fmt.Errorf("opening a socket for announcements: %w", err)
	}
	return Announcer(socket), err
}

// AnnounceOwn announces all addresses of this container. Docker 28 and later give a container a new MAC address at
// each start, but announce only the addresses that Docker assigned, and only with gratuitous requests, which a
// neighbour may ignore. Neighbours would use the former container's MAC address for half a minute.
func (a Announcer) AnnounceOwn(root string, sibling boot.Sibling) error {
	own := slices.Clone(sibling.Addresses)
	for _, iface := range sibling.Interfaces {
		if _, err := kernel.LinkHolding(iface.Address); err == nil { // a missing address is reported elsewhere
			own = append(own, boot.Address{Address: iface.Address, Subnet: iface.Subnet})
		}
	}
	if Claimed(root) {
		own = append(own, *sibling.Service)
	}
	for _, address := range own {
		link, err := kernel.LinkHolding(address.Address)
		if err != nil {
			return err
		}
		if err := a.announce(link, address, askedBeside(sibling, address)); err != nil {
			return err
		}
	}
	return nil
}

func serviceLink(sibling boot.Sibling) (netlink.Link, error) {
	if sibling.Service == nil {
		return nil, fmt.Errorf("the %s sibling has no service address", sibling.Name)
	}
	return kernel.LinkIn(sibling.Service.Subnet)
}

// Release moves the service address to the loopback interface with host scope. The container still answers queries
// sent to its MAC address, so none is lost. With arp_ignore=3 it no longer answers ARP requests for the address,
// so no agent resolves the address to this container again.
func Release(root string, sibling boot.Sibling) error {
	if sibling.Service == nil {
		return fmt.Errorf("the %s sibling has no service address", sibling.Name)
	}
	if err := os.Remove(ClaimRecord(root)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	link, err := kernel.LinkHolding(sibling.Service.Address)
	if errors.Is(err, kernel.ErrNoInterface) {
		return nil // not held
	}
	if err != nil {
		return err
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := kernel.AddAddress(loopback, sibling.Service.Address, netlink.SCOPE_HOST); err != nil {
		return err
	}
	return netlink.AddrDel(link, &netlink.Addr{IPNet: kernel.IPNet(netip.PrefixFrom(sibling.Service.Address, 32))})
}

// announce broadcasts two ARP requests from the address. The first is gratuitous: the address is also its target
// (RFC 5944, section 4.6), and neighbours update their entries. A host with `drop_gratuitous_arp`, which
// containers inherit, ignores it, but not the second, which asks for another address: users of the sender's
// address update their entry, and the target learns it (RFC 826).
func (a Announcer) announce(link netlink.Link, address boot.Address, asked netip.Addr) error {
	for _, target := range []netip.Addr{address.Address, asked} {
		frame := arpRequest(link.Attrs().HardwareAddr, address.Address, target)
		if err := broadcast(int(a), link.Attrs().Index, frame); err != nil {
			return fmt.Errorf("announcing %s: %w", address.Address, err)
		}
	}
	return nil
}

// askedBeside returns the target of the second announcement: the gateway, because the host must know our source
// addresses on the way out, or any other address of the subnet.
func askedBeside(sibling boot.Sibling, address boot.Address) netip.Addr {
	for _, iface := range sibling.Interfaces {
		if iface.Subnet == address.Subnet && iface.Gateway != nil {
			return *iface.Gateway
		}
		if iface.Subnet == address.Subnet && iface.Address != address.Address {
			return iface.Address
		}
	}
	if first := address.Subnet.Masked().Addr().Next(); first != address.Address {
		return first
	}
	return address.Address.Next()
}

func broadcast(socket, link int, frame []byte) error {
	return unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{
		Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: link, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	})
}

// arpRequest returns an Ethernet frame: a header (14 bytes) and an ARP packet for IPv4 (28 bytes; RFC 826).
func arpRequest(hardware []byte, sender, target netip.Addr) []byte {
	return slices.Concat(
		bytes.Repeat([]byte{0xff}, 6), hardware, []byte{0x08, 0x06}, // EtherType: ARP
		[]byte{0, 1, 0x08, 0, 6, 4}, // hardware type Ethernet, protocol type IPv4, and the lengths of both address types
		[]byte{0, 1},                // operation: request
		hardware, sender.AsSlice(),
		make([]byte, 6), target.AsSlice(),
	)
}

func networkOrder(value uint16) uint16 { return value<<8 | value>>8 }

// answerWithin is the wait for ARP replies. On a bridge within one host they take microseconds.
const answerWithin = 15 * time.Millisecond

const (
	arpLength    = 42 // Ethernet header and an ARP packet for IPv4
	arpReply     = 2
	arpOperation = 20
	arpSender    = 22 // the sender's MAC address, followed by its IPv4 address
)

// Others collects the ARP replies of other hosts for this container's addresses.
type Others struct {
	socket  int
	own     map[netip.Addr]net.HardwareAddr
	answers chan []string
}

// AskForOthers sends an ARP probe for each address of this container, as a host does before it takes an address
// (RFC 5227, section 2.1.1), and collects the replies in the background. A host doesn't answer its own probes, so
// there should be none.
//
// One socket serves all interfaces. It gets its protocol when it is bound, because changing or closing a socket
// with a protocol takes the kernel about 10 ms.
func AskForOthers() (*Others, error) {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening an ARP socket: %w", err)
	}
	asked := &Others{socket: socket, own: map[netip.Addr]net.HardwareAddr{}, answers: make(chan []string, 1)}
	if err := asked.ask(); err != nil {
		unix.Close(socket)
		return nil, err
	}
	go func() {
		asked.answers <- asked.collect()
		unix.Close(socket)
	}()
	return asked, nil
}

func (o *Others) ask() error {
	if err := unix.Bind(o.socket, &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ARP)}); err != nil {
		return fmt.Errorf("binding an ARP socket: %w", err)
	}
	list, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return err
	}
	for _, address := range list {
		ip, ok := netip.AddrFromSlice(address.IP.To4())
		if !ok || ip.IsLoopback() || netlink.Scope(address.Scope) == netlink.SCOPE_HOST {
			continue
		}
		link, err := netlink.LinkByIndex(address.LinkIndex)
		if err != nil {
			return err
		}
		hardware := link.Attrs().HardwareAddr
		o.own[ip] = hardware
		frame := arpRequest(hardware, netip.IPv4Unspecified(), ip) // no sender address: a probe changes no ARP cache
		if err := broadcast(o.socket, address.LinkIndex, frame); err != nil {
			return fmt.Errorf("sending an ARP probe for %s: %w", ip, err)
		}
	}
	return nil
}

// Answers waits for the replies, and returns the other holders as `ADDRESS MAC-ADDRESS`, sorted.
func (o *Others) Answers() []string { return <-o.answers }

func (o *Others) collect() []string {
	others := []string{}
	frame := make([]byte, 128)
	for sent := time.Now(); time.Since(sent) < 10*answerWithin; {
		over := time.Since(sent) > answerWithin // before reading: this process may have been paused
		size, err := unix.Read(o.socket, frame)
		if errors.Is(err, unix.EAGAIN) {
			if over {
				break
			}
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return append(others, "unreadable: "+err.Error())
		}
		if text := o.stranger(frame[:size]); text != "" && !slices.Contains(others, text) {
			others = append(others, text)
		}
	}
	slices.Sort(others)
	return others
}

func (o *Others) stranger(frame []byte) string {
	if len(frame) < arpLength || binary.BigEndian.Uint16(frame[arpOperation:]) != arpReply {
		return ""
	}
	hardware := net.HardwareAddr(frame[arpSender : arpSender+6])
	address, _ := netip.AddrFromSlice(frame[arpSender+6 : arpSender+10])
	own, ours := o.own[address]
	if !ours || bytes.Equal(own, hardware) {
		return ""
	}
	return fmt.Sprintf("%s %s", address, hardware)
}
