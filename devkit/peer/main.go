// Command peer plays everyone around the firewall: the origin servers it leads to, the DNS the world has, and the
// agents behind it.
//
// This file holds the table of verbs and how one is found, parsed and ended. What a verb does lives in the file of
// its name. Every verb prints JSON on stdout, one object per line; usage errors go to stderr with exit code 2.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// action performs a verb. It is false when what was asked for didn't work out; an error is a failure of the peer
// itself, such as a port that is taken.
type action func(ctx context.Context, positional []string, out *printer) (bool, error)

// verb is one way to run the program. declare adds its flags to the set and returns the action that reads them.
type verb struct {
	name, arguments, summary string
	declare                  func(flags *flag.FlagSet) action
}

func verbs() []verb {
	return []verb{
		{"origin", "", "serve HTTP and HTTPS until SIGTERM", declareOrigin},
		{"dns", "", "answer A and AAAA queries from a map until SIGTERM", declareNameserver},
		{"get", "URL", "make requests, each on a new connection", declareGet},
		{"resolve", "NAME", "send one DNS query", declareResolve},
		{"load", "URL...", "make requests in an open loop and measure what they met", declareLoad},
		{"drive", "URL", "make as many requests as a way carries, in closed loops", declareDrive},
		{"keepalive", "URL", "repeat a request on one connection and count what breaks it", declareKeepalive},
		{"download", "URL", "read one response to its end", declareDownload},
		{"raw", "ADDRESS:PORT", "send bytes and read what comes back", declareRaw},
		{"hold", "ADDRESS:PORT", "open connections and keep them", declareHold},
		{"siege", "ADDRESS:PORT", "take as many connections as are let, and those that are lost again", declareSiege},
		{"inundate", "NAME", "send one DNS query many times and count the answers", declareInundate},
		{"exhaust", "USER", "become a user and take all inotify instances, or watches of epoll, that it may have", declareExhaust},
		{"probe-tcp", "ADDRESS:PORT", "open a TCP connection and close it", declareProbe},
		{"ping", "ADDRESS", "send an ICMP echo and wait for its answer", declarePing},
		{"forge", "ADDRESS:PORT", "send a UDP datagram as a raw frame, from any address, to any hardware address", declareForge},
		{"netinfo", "", "show addresses, default route and resolv.conf", declareNetinfo},
		{"move", "FROM TO", "rename a file", declareMove},
		{"remove", "PATH", "delete a file", declareRemove},
		{"search", "", "tell where octets are, in the memory of processes and in files", declareSearch},
		{"sniff", "BRIDGE...", "print the packets that pass bridges until SIGTERM", declareSniff},
		{"spoof", "ADDRESS HARDWARE", "answer ARP probes for an address with a hardware address until SIGTERM", declareSpoof},
		{"sweep", "NETWORK", "send a datagram to every address of a network, again and again", declareSweep},
		{"wait", "", "sleep until SIGTERM", declareWait},
		{"commands", "", "run the command lines on standard input, each in a process of its own", declareCommands},
	}
}

// usageError is a command line that makes no sense.
type usageError string

func (e usageError) Error() string { return string(e) }

func main() {
	// A process with id 1 has no default action for these signals, so every verb ends by this context.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	if len(arguments) == 0 {
		writeHelp(stderr)
		return exitUsage
	}
	name := arguments[0]
	if name == "help" || name == "-h" || name == "--help" {
		writeHelp(stdout)
		return exitDone
	}
	for _, verb := range verbs() {
		if verb.name == name {
			return verb.execute(ctx, arguments[1:], stdout, stderr)
		}
	}
	fmt.Fprintf(stderr, "peer: there is no verb %q\n\n", name)
	writeHelp(stderr)
	return exitUsage
}

func (v verb) execute(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { v.writeUsage(flags) }
	perform := v.declare(flags)

	positional, err := parseInterspersed(flags, arguments)
	if errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	if err != nil {
		return exitUsage // the flag package has said what is wrong
	}
	ok, err := perform(ctx, positional, &printer{writer: stdout})
	var usage usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "peer %s: %s\n", v.name, usage)
		flags.Usage()
		return exitUsage
	case err != nil:
		fmt.Fprintf(stderr, "peer %s: %s\n", v.name, err)
		return exitFailed
	case !ok:
		return exitFailed
	}
	return exitDone
}

func (v verb) writeUsage(flags *flag.FlagSet) {
	out := flags.Output()
	fmt.Fprintf(out, "usage: peer %s", v.name)
	if v.arguments != "" {
		fmt.Fprintf(out, " %s", v.arguments)
	}
	fmt.Fprintf(out, " [flags]\n%s\n", v.summary)
	flags.PrintDefaults()
}

func writeHelp(out io.Writer) {
	fmt.Fprint(out, "usage: peer VERB [arguments] [flags]; peer VERB -h lists the flags\n\n")
	for _, verb := range verbs() {
		fmt.Fprintf(out, "  %-9s  %-16s  %s\n", verb.name, verb.arguments, verb.summary)
	}
}

// parseInterspersed parses flags wherever they stand and returns the rest. The flag package alone stops at the first
// argument that isn't one, and would take "get URL --timeout 1s" for three arguments.
func parseInterspersed(flags *flag.FlagSet, arguments []string) ([]string, error) {
	var positional []string
	for {
		if err := flags.Parse(arguments); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return positional, nil
		}
		positional = append(positional, flags.Arg(0))
		arguments = flags.Args()[1:]
	}
}

// noArguments refuses positional arguments for the verbs that have none.
func noArguments(positional []string) error {
	if len(positional) > 0 {
		return usageError(fmt.Sprintf("unexpected argument %q", positional[0]))
	}
	return nil
}

// oneArgument returns the only positional argument.
func oneArgument(positional []string, what string) (string, error) {
	if len(positional) != 1 {
		return "", usageError(fmt.Sprintf("expected one %s, got %d arguments", what, len(positional)))
	}
	return positional[0], nil
}
