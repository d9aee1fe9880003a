package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const announceEvery = 100 * time.Millisecond

// claimRecord exists while this container holds the service address, so that serve takes it again after a
// restart (the engine makes a new network namespace then and knows nothing of our address).
func claimRecord(root string) string { return filepath.Join(root, "state", "claimed") }

func claimed(root string) bool {
	_, err := os.Stat(claimRecord(root))
	return err == nil
}

// claim takes the service address and announces it by gratuitous ARP (RFC 5944, section 4.6). It returns
// after `announce`, since a neighbour entry that has just changed may refuse to change again for a second.
//
// A claim that can't be met leaves no record: serve would refuse to start for ever.
func claim(root string, sibling Sibling, announce time.Duration) error {
	link, err := serviceLink(sibling)
	if err != nil {
		return err
	}
	if err := writeFile(claimRecord(root), []byte("service address\n")); err != nil {
		return err
	}
	if err := addAddress(link, sibling.Service.Address, netlink.SCOPE_UNIVERSE); err != nil {
		return err
	}
	for end := time.Now().Add(announce); ; time.Sleep(announceEvery) {
		if err := announceAddress(link, sibling.Service.Address); err != nil {
			return err
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// announceOwn takes the service address again if it was claimed, and announces every address that the engine knows
// nothing of. Since release 28 an engine gives a container another hardware address at each start, and announces
// only the addresses that it gave itself: whoever remembers one of ours would send to the old one for half a minute.
func announceOwn(root string, sibling Sibling) error {
	own := sibling.Addresses
	if claimed(root) {
		link, err := serviceLink(sibling)
		if err != nil {
			return err
		}
		if err := addAddress(link, sibling.Service.Address, netlink.SCOPE_UNIVERSE); err != nil {
			return err
		}
		own = append(slices.Clone(own), *sibling.Service)
	}
	for _, address := range own {
		link, err := linkHolding(address.Address)
		if err != nil {
			return err
		}
		if err := announceAddress(link, address.Address); err != nil {
			return err
		}
	}
	return nil
}

func serviceLink(sibling Sibling) (netlink.Link, error) {
	if sibling.Service == nil {
		return nil, fmt.Errorf("the %s sibling has no service address", sibling.Name)
	}
	return linkIn(sibling.Service.Subnet)
}

// release moves the service address to the loopback interface with host scope. Queries that agents still
// send to this container's hardware address are answered, but with arp_ignore=3 no ARP request is: nobody
// finds the address here any more, and nobody who has it here loses a query.
func release(root string, sibling Sibling) error {
	if sibling.Service == nil {
		return fmt.Errorf("the %s sibling has no service address", sibling.Name)
	}
	if err := os.Remove(claimRecord(root)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	link, err := linkHolding(sibling.Service.Address)
	if errors.Is(err, errNoInterface) {
		return nil // not held: nothing to give up
	}
	if err != nil {
		return err
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := addAddress(loopback, sibling.Service.Address, netlink.SCOPE_HOST); err != nil {
		return err
	}
	return netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(sibling.Service.Address, 32))})
}

// announceAddress broadcasts one gratuitous ARP request: sender and target are both the address.
func announceAddress(link netlink.Link, address netip.Addr) error {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(networkOrder(unix.ETH_P_ARP)))
	if err != nil {
		return fmt.Errorf("announcing %s: %w", address, err)
	}
	defer unix.Close(socket)
	frame := gratuitousARP(link.Attrs().HardwareAddr, address)
	if err := broadcast(socket, link.Attrs().Index, frame); err != nil {
		return fmt.Errorf("announcing %s: %w", address, err)
	}
	return nil
}

func broadcast(socket, link int, frame []byte) error {
	return unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{
		Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: link, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	})
}

// gratuitousARP is an Ethernet frame (14 bytes) with an ARP packet for IPv4 (28 bytes; RFC 826).
func gratuitousARP(hardware []byte, address netip.Addr) []byte {
	frame := make([]byte, 0, 42)
	frame = append(frame, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	frame = append(frame, hardware...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = binary.BigEndian.AppendUint16(frame, 1)             // hardware type: Ethernet
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_IP) // protocol type: IPv4
	frame = append(frame, 6, 4, 0, 1)                           // lengths; operation 1: request
	frame = append(frame, hardware...)
	frame = append(frame, address.AsSlice()...)
	frame = append(frame, 0, 0, 0, 0, 0, 0)
	return append(frame, address.AsSlice()...)
}

func networkOrder(value uint16) uint16 { return value<<8 | value>>8 }
