// Command peer plays everyone around the firewall: the origin servers it leads to, the DNS the world has, and the
// agents behind it.
//
// This file holds the table of verbs and how one is found, parsed and ended. Every verb prints JSON on stdout, one
// object per line. What keeps it from running goes to stderr.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

const exitFailed = 1

// action performs a verb. It is false when what was asked for didn't work out; an error is a failure of the peer
// itself, such as a port that is taken.
type action func(ctx context.Context, arguments []string, out *printer) (bool, error)

// verb is one way to run the program. It takes an argument for each word, or more of the last one with "...". declare
// adds its flags to the set and returns the action that reads them.
type verb struct {
	name, arguments, summary string
	declare                  func(flags *flag.FlagSet) action
}

func verbs() []verb {
	return []verb{
		{"origin", "", "serve HTTP and HTTPS until SIGTERM", declareOrigin},
		{"dns", "", "answer A and AAAA queries from a map until SIGTERM", declareNameserver},
		{"get", "URL", "make a request on a new connection", declareGet},
		{"resolve", "NAME", "send one DNS query", declareResolve},
		{"load", "URL...", "make requests in an open loop and measure what they met", declareLoad},
		{"drive", "URL", "make requests in closed loops, as many as a way carries, or on a connection until it breaks", declareDrive},
		{"raw", "ADDRESS:PORT", "send bytes and read what comes back", declareRaw},
		{"siege", "ADDRESS:PORT", "take as many connections as are let, and those that are lost again", declareSiege},
		{"inundate", "NAME", "send one DNS query many times and count the answers", declareInundate},
		{"exhaust", "USER", "become a user and take all inotify instances, or watches of epoll, that it may have", declareExhaust},
		{"probe-tcp", "ADDRESS:PORT", "open a TCP connection and close it", declareProbe},
		{"ping", "ADDRESS", "send an ICMP echo and wait for its answer", declarePing},
		{"forge", "ADDRESS:PORT", "send a UDP datagram as a raw frame, from any address, to any hardware address", declareForge},
		{"spoof", "ADDRESS HARDWARE", "answer ARP probes for an address with a hardware address until SIGTERM", declareSpoof},
		{"sweep", "NETWORK", "send a datagram to every address of a network, again and again", declareSweep},
		{"wait", "", "sleep until SIGTERM", declareWait},
		{"commands", "", "run the command lines on standard input, each in a process of its own", declareCommands},
	}
}

func main() {
	// A process with id 1 has no default action for these signals, so every verb ends by this context.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	ok, err := execute(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "peer: %s\n", err)
	}
	if !ok || err != nil {
		os.Exit(exitFailed)
	}
}

func execute(ctx context.Context, arguments []string) (bool, error) {
	for _, verb := range verbs() {
		if len(arguments) == 0 || verb.name != arguments[0] {
			continue
		}
		flags := flag.NewFlagSet(strings.TrimSpace(verb.name+" "+verb.arguments)+": "+verb.summary, flag.ExitOnError)
		perform := verb.declare(flags)
		positional := parseInterspersed(flags, arguments[1:])
		names := strings.Fields(verb.arguments)
		if more := strings.HasSuffix(verb.arguments, "..."); len(positional) < len(names) || len(positional) > len(names) && !more {
			return false, fmt.Errorf("%s takes the arguments [%s], not %q", verb.name, verb.arguments, positional)
		}
		return perform(ctx, positional, new(printer))
	}
	return false, fmt.Errorf("there is no verb for %q", arguments)
}

// parseInterspersed parses flags wherever they stand and returns the rest. The flag package alone stops at the first
// argument that isn't one, and would take "get URL --timeout 1s" for three arguments.
func parseInterspersed(flags *flag.FlagSet, arguments []string) (positional []string) {
	for {
		_ = flags.Parse(arguments) // it ends the program if something is wrong
		if flags.NArg() == 0 {
			return positional
		}
		positional = append(positional, flags.Arg(0))
		arguments = flags.Args()[1:]
	}
}

// printer writes whole lines, whoever calls it.
type printer struct{ mutex sync.Mutex }

type event struct {
	Event string `json:"event"`
}

func (p *printer) print(value any) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(value)
}

// milliseconds is a duration as fractional milliseconds, to the microsecond.
func milliseconds(duration time.Duration) float64 {
	return float64(duration.Microseconds()) / 1000
}

// percentile is the smallest value that at least percent of all don't exceed; zero when there are none.
func percentile(sorted []time.Duration, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*percent + 99) / 100
	return milliseconds(sorted[max(rank, 1)-1])
}
