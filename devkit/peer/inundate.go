// The verb inundate: one query, sent over and over as fast as it goes, and how many answers come back.
package main

import (
	"context"
	"flag"
	"net"
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
	return func(_ context.Context, positional []string, out *printer) (bool, error) {
		name, err := oneArgument(positional, "NAME")
		if err != nil {
			return false, err
		}
		address := server()
		if address == "" {
			if address, err = firstNameserver(resolvConf); err != nil {
				return false, err
			}
		}
		query, err := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA).Pack()
		if err != nil {
			return false, err
		}
		wanted := func(sent int) bool { return sent < *count }
		if *seconds > 0 {
			end := time.Now().Add(time.Duration(*seconds * float64(time.Second)))
			wanted = func(int) bool { return time.Now().Before(end) }
		}
		began := time.Now()
		more := func(sent int) bool {
			time.Sleep(time.Until(began.Add(time.Duration(sent) * *pause)))
			return wanted(sent)
		}
		result, err := inundate(address, query, more)
		out.print(result)
		return result.Answers == result.Sent, err
	}
}

// inundate sends queries from one socket, as long as there are more, while it reads the answers until none comes any
// longer.
func inundate(address string, query []byte, more func(sent int) bool) (inundateResult, error) {
	conn, err := net.Dial("udp4", address)
	if err != nil {
		return inundateResult{}, err
	}
	defer conn.Close()
	answers, sent := make(chan int), make(chan struct{})
	go func() {
		total, ended := 0, false
		for buffer := make([]byte, dns.MaxMsgSize); ; {
			_ = conn.SetReadDeadline(time.Now().Add(lastAnswer))
			if _, err := conn.Read(buffer); err == nil {
				total++
				continue
			}
			if ended {
				answers <- total
				return
			}
			select {
			case <-sent:
				ended = true
			default:
			}
		}
	}()
	result := inundateResult{}
	for tried := 0; more(tried); tried++ {
		if _, err := conn.Write(query); err == nil {
			result.Sent++
		}
	}
	close(sent)
	result.Answers = <-answers
	return result, nil
}
