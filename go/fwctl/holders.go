package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// answerWithin is how long to wait for ARP replies. On a bridge within one host they take microseconds.
const answerWithin = 15 * time.Millisecond

const (
	arpLength    = 42 // Ethernet header and an ARP packet for IPv4
	arpReply     = 2
	arpOperation = 20
	arpSender    = 22 // the sender's hardware address, followed by its IPv4 address
)

// Others collects ARP replies of other hosts for our addresses.
type Others struct {
	sockets []int
	sent    time.Time
	own     map[netip.Addr]net.HardwareAddr
}

// askForOthers sends an ARP probe for each of our addresses, as a host does before it takes an address (RFC 5227,
// section 2.1.1). Nobody should answer: a host does not answer its own probes.
func askForOthers() (*Others, error) {
	asked := &Others{sent: time.Now(), own: map[netip.Addr]net.HardwareAddr{}}
	list, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, err
	}
	byLink := map[int][]netip.Addr{}
	for _, address := range list {
		ip, ok := netip.AddrFromSlice(address.IP.To4())
		if ok && !ip.IsLoopback() && netlink.Scope(address.Scope) != netlink.SCOPE_HOST {
			byLink[address.LinkIndex] = append(byLink[address.LinkIndex], ip)
		}
	}
	for index, addresses := range byLink {
		if err := asked.ask(index, addresses); err != nil {
			asked.close()
			return nil, err
		}
	}
	return asked, nil
}

func (o *Others) ask(index int, addresses []netip.Addr) error {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return err
	}
	socket, err := unix.Socket(
		unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_ARP)))
	if err != nil {
		return fmt.Errorf("opening an ARP socket: %w", err)
	}
	o.sockets = append(o.sockets, socket)
	here := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: index}
	if err := unix.Bind(socket, here); err != nil {
		return fmt.Errorf("binding an ARP socket: %w", err)
	}
	for _, address := range addresses {
		o.own[address] = link.Attrs().HardwareAddr
		frame := gratuitousARP(link.Attrs().HardwareAddr, address)
		copy(frame[arpSender+6:], make([]byte, 4)) // no sender address: a probe changes no ARP cache
		if err := broadcast(socket, index, frame); err != nil {
			return fmt.Errorf("sending an ARP probe for %s: %w", address, err)
		}
	}
	return nil
}

// answers returns the other holders of our addresses as `address hardware-address`, sorted.
func (o *Others) answers() []string {
	defer o.close()
	found := []string{}
	frame := make([]byte, 128)
	for {
		silent := true
		for _, socket := range o.sockets {
			size, err := unix.Read(socket, frame)
			if err != nil {
				if !errors.Is(err, unix.EAGAIN) {
					return append(found, "unreadable: "+err.Error())
				}
				continue
			}
			silent = false
			if text := o.stranger(frame[:size]); text != "" && !slices.Contains(found, text) {
				found = append(found, text)
			}
		}
		if silent && time.Since(o.sent) > answerWithin {
			slices.Sort(found)
			return found
		}
		if silent {
			time.Sleep(time.Millisecond)
		}
	}
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

func (o *Others) close() {
	for _, socket := range o.sockets {
		unix.Close(socket)
	}
	o.sockets = nil
}
