// The verb probe-tcp: can a TCP connection be opened at all?
package main

import (
	"context"
	"flag"
	"net"
	"time"
)

type probeResult struct {
	OK           bool    `json:"ok"`
	Milliseconds float64 `json:"ms"`
	Error        *string `json:"error"` // the kind
}

func declareProbe(flags *flag.FlagSet) action {
	timeout := flags.Duration("timeout", 2*time.Second, "limit for lookup and connection")
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		address, err := oneArgument(positional, "ADDRESS:PORT")
		if err != nil {
			return false, err
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return false, usageError(err.Error())
		}
		result := probe(ctx, destination{host: host, port: port}, *timeout)
		out.print(result)
		return result.OK, nil
	}
}

func probe(ctx context.Context, to destination, timeout time.Duration) probeResult {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begin := time.Now()
	conn, _, err := open(ctx, to)
	result := probeResult{OK: err == nil, Milliseconds: milliseconds(time.Since(begin))}
	if err != nil {
		kind := kindOf(err)
		result.Error = &kind
		return result
	}
	conn.abandon() // a peer that never speaks, or speaks first, isn't worth waiting for
	return result
}
