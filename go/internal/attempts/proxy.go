package attempts

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"clawker-fw/internal/boot"
)

// ProxyQuestion is what `proxy` reads: the upstream proxy, and where to ask it to connect.
type ProxyQuestion struct {
	Proxy         string   `json:"proxy"` // host and port
	TLS           bool     `json:"tls"`
	Roots         string   `json:"roots"`         // as PEM; the image's if empty
	Authorization string   `json:"authorization"` // the header's value, or ""
	Targets       []string `json:"targets"`       // hosts and ports
}

// ProxyAnswers has an answer for each target, in their order.
type ProxyAnswers struct {
	Answers []ProxyAnswer `json:"answers"`
}

// ProxyAnswer is what came of CONNECT: its status, or 0 with the reason.
type ProxyAnswer struct {
	Target     string  `json:"target"`
	Status     int     `json:"status"`
	Seconds    float64 `json:"seconds"`
	Error      string  `json:"error"`      // why there is no status, or Squid's error
	Challenges string  `json:"challenges"` // the schemes of credentials that it demands
}

// TryProxy asks the proxy for all targets at the same time, from the source address whose routing table leads to it.
func TryProxy(tables []boot.Table, size int64, from io.Reader) (ProxyAnswers, error) {
	var question ProxyQuestion
	if err := json.NewDecoder(io.LimitReader(from, size)).Decode(&question); err != nil {
		return ProxyAnswers{}, errors.New("what was sent is no question about a proxy") // it has a secret
	}
	index := slices.IndexFunc(tables, func(table boot.Table) bool { return table.Name == "proxied" })
	if index < 0 {
		return ProxyAnswers{}, errors.New("this Envoy has no upstream proxy")
	}
	made := ProxyAnswers{make([]ProxyAnswer, len(question.Targets))}
	var all sync.WaitGroup
	for place, target := range question.Targets {
		all.Go(func() {
			begun := time.Now()
			answer, err := question.connect(tables[index].From, target)
			if err != nil {
				answer.Error = reason(err)
			}
			answer.Target, answer.Seconds = target, time.Since(begun).Seconds()
			made.Answers[place] = answer
		})
	}
	all.Wait()
	return made, nil
}

func (q ProxyQuestion) connect(source netip.Addr, target string) (ProxyAnswer, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: source.AsSlice()}, Timeout: attemptWithin}
	connection, err := dialer.Dial("tcp4", q.Proxy)
	if err != nil {
		return ProxyAnswer{}, err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(speakWithin))
	if q.TLS {
		host, _, _ := net.SplitHostPort(q.Proxy)
		config := &tls.Config{ServerName: host}
		if q.Roots != "" {
			config.RootCAs = x509.NewCertPool()
			config.RootCAs.AppendCertsFromPEM([]byte(q.Roots))
		}
		connection = tls.Client(connection, config)
	}
	credentials := ""
	if q.Authorization != "" {
		credentials = "Proxy-Authorization: " + q.Authorization + "\r\n"
	}
	response, err := exchange(connection, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", http.MethodConnect, target, target, credentials))
	if err != nil {
		return ProxyAnswer{}, err
	}
	response.Body.Close()
	header := response.Header
	return ProxyAnswer{Status: response.StatusCode, Error: header.Get("X-Squid-Error"), Challenges: header.Get("Proxy-Authenticate")}, nil
}
