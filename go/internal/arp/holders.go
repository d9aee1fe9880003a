package arp

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
	socket int
	own    map[netip.Addr]net.HardwareAddr
	found  chan []string
}

// AskForOthers sends an ARP probe for each of our addresses, as a host does before it takes an address (RFC 5227,
// section 2.1.1). Nobody should answer: a host does not answer its own probes. The replies are collected in the
// background.
//
// One socket serves all interfaces, and it gets its protocol when it is bound: while it has one, each change of the
// socket, and closing it, takes the kernel about 10 ms.
func AskForOthers() (*Others, error) {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening an ARP socket: %w", err)
	}
	asked := &Others{socket: socket, own: map[netip.Addr]net.HardwareAddr{}, found: make(chan []string, 1)}
	if err := asked.ask(); err != nil {
		unix.Close(socket)
		return nil, err
	}
	go func() {
		asked.found <- asked.collect()
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

// Answers waits for the replies. It returns the other holders of our addresses as `address hardware-address`, sorted.
func (o *Others) Answers() []string { return <-o.found }

// collect reads replies until none is left after the time for them, or for much longer while frames keep arriving.
func (o *Others) collect() []string {
	found := []string{}
	frame := make([]byte, 128)
	for sent := time.Now(); time.Since(sent) < 10*answerWithin; {
		over := time.Since(sent) > answerWithin // seen before reading: this program may not have run for a while
		size, err := unix.Read(o.socket, frame)
		if errors.Is(err, unix.EAGAIN) {
			if over {
				break
			}
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return append(found, "unreadable: "+err.Error())
		}
		if text := o.stranger(frame[:size]); text != "" && !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	slices.Sort(found)
	return found
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
