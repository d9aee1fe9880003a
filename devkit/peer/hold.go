// The verb hold: connections that are opened one after the other and kept, as many as are let.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"net"
	"time"
)

// holdResult is printed at the end.
type holdResult struct {
	Opened int            `json:"opened"`
	Errors map[string]int `json:"errors"` // of those that were not, by kind
	Alive  int            `json:"alive"`  // of the opened ones, those that the other side had not ended by then
}

func declareHold(flags *flag.FlagSet) action {
	count := flags.Int("count", 1, "how many to open")
	bytes := flags.String("hex", "", "the bytes to send on each, in `HEXADECIMAL`")
	pause := flags.Duration("for", 0, "how long to keep them after the last one")
	return func(ctx context.Context, positional []string, out *printer) (bool, error) {
		address, err := oneArgument(positional, "ADDRESS:PORT")
		if err != nil {
			return false, err
		}
		sent, err := hex.DecodeString(*bytes)
		if err != nil {
			return false, usageError(err.Error())
		}
		result := hold(ctx, address, *count, sent, *pause)
		out.print(result)
		return result.Opened == *count, nil
	}
}

func hold(ctx context.Context, address string, count int, sent []byte, pause time.Duration) holdResult {
	result := holdResult{Errors: map[string]int{}}
	var opened []net.Conn
	opening := context.WithoutCancel(ctx) // who asks for the end early wants to know what became of all
	for range count {
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.DialContext(opening, "tcp4", address)
		if err == nil {
			defer conn.Close()
			_, err = conn.Write(sent)
		}
		if err != nil {
			result.Errors[kindOf(inStage(opening, stageConnect, err))]++
			continue
		}
		opened = append(opened, conn)
	}
	result.Opened = len(opened)
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
	for _, conn := range opened {
		_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			result.Alive++
		}
	}
	return result
}
