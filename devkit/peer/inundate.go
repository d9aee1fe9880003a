// The verb inundate: one query, sent over and over as fast as it goes, and how many answers come back.
package main

import (
	"context"
	"flag"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// lastAnswer is how long to wait for the next answer.
const lastAnswer = 500 * time.Millisecond

type inundateResult struct {
	Sent    int `json:"sent"`
	Answers int `json:"answers"`
}

func declareInundate(flags *flag.FlagSet) action {
	count := flags.Int("count", 1000, "how many queries to send")
	seconds := flags.Float64("seconds", 0, "send for this long instead, however many that are")
	server := declareServer(flags, "server")
	pause := flags.Duration("pause", 0, "the time from one query to the next; one that is late is sent at once")
	return func(_ context.Context, arguments []string, out *printer) (bool, error) {
		address, err := serverOrFirst(server())
		if err != nil {
			return false, err
		}
		query, err := new(dns.Msg).SetQuestion(dns.Fqdn(arguments[0]), dns.TypeA).Pack()
		if err != nil {
			return false, err
		}
		began := time.Now()
		end := began.Add(time.Duration(*seconds * float64(time.Second)))
		result, err := inundate(address, query, func(sent int) bool {
			time.Sleep(time.Until(began.Add(time.Duration(sent) * *pause)))
			if *seconds > 0 {
				return time.Now().Before(end)
			}
			return sent < *count
		})
		out.print(result)
		return result.Answers == result.Sent, err
	}
}

// inundate sends queries from one socket, as long as there are more, while it reads the answers until none comes any
// longer.
func inundate(address string, query []byte, more func(sent int) bool) (result inundateResult, err error) {
	conn, err := net.Dial("udp4", address)
	if err != nil {
		return result, err
	}
	defer conn.Close()
	var sending atomic.Bool
	sending.Store(true)
	var reading sync.WaitGroup
	reading.Go(func() {
		for buffer := make([]byte, dns.MaxMsgSize); ; {
			last := !sending.Load()
			_ = conn.SetReadDeadline(time.Now().Add(lastAnswer))
			if _, err := conn.Read(buffer); err == nil {
				result.Answers++
			} else if last {
				return
			}
		}
	})
	for tried := 0; more(tried); tried++ {
		if _, err := conn.Write(query); err == nil {
			result.Sent++
		}
	}
	sending.Store(false)
	reading.Wait()
	return result, nil
}
