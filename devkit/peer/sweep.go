// The verb sweep: a datagram to every address of a network, again and again, so that the kernel asks for all of them.
package main

import (
	"bytes"
	"context"
	"flag"
	"net"
	"net/netip"
	"os"
	"time"
)

// arpTable lists the neighbours of the network namespace that a program runs in (proc_pid_net(5), `/proc/net/arp`).
const arpTable = "/proc/net/arp"

type sweepResult struct {
	// Sent counts datagrams that the kernel took, and Failed those that it refused, as when its table is full.
	Sent   int `json:"sent"`
	Failed int `json:"failed"`
	// Neighbours is the largest number of entries seen in the kernel's table after a round.
	Neighbours int `json:"neighbours"`
}

func declareSweep(flags *flag.FlagSet) action {
	seconds := flags.Float64("seconds", 1, "go on for this long, at least for one round")
	return func(ctx context.Context, arguments []string, out *printer) (bool, error) {
		network, err := netip.ParsePrefix(arguments[0])
		if err != nil {
			return false, err
		}
		ctx, stop := context.WithTimeout(ctx, time.Duration(*seconds*float64(time.Second)))
		defer stop()
		result, err := sweep(ctx, network.Masked())
		out.print(result)
		return true, err
	}
}

// sweep sends until the context ends. Each datagram has a socket of its own: what waits for a neighbour counts
// towards what its socket may have queued.
func sweep(ctx context.Context, network netip.Prefix) (sweepResult, error) {
	var result sweepResult
	for {
		for address := network.Addr().Next(); network.Contains(address); address = address.Next() {
			if err := sendOnce(address); err != nil {
				result.Failed++
			} else {
				result.Sent++
			}
		}
		table, err := os.ReadFile(arpTable)
		if err != nil {
			return result, err
		}
		result.Neighbours = max(result.Neighbours, bytes.Count(table, []byte("\n"))-1) // the first line is a heading
		select {
		case <-ctx.Done():
			return result, nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func sendOnce(address netip.Addr) error {
	conn, err := net.Dial("udp4", netip.AddrPortFrom(address, 9).String())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte{0})
	return err
}
