package attempts

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"clawker-fw/internal/boot"
)

// ProxyQuestion is the input of proxy: the upstream proxy, and requests for it, which may contain a secret.
type ProxyQuestion struct {
	Proxy    string   `json:"proxy"` // host and port
	TLS      bool     `json:"tls"`
	Roots    string   `json:"roots"` // as PEM; the image's if empty
	Requests []string `json:"requests"`
}

// ProxyAnswers has the answers in the order of the requests.
type ProxyAnswers struct {
	Answers []ProxyAnswer `json:"answers"`
}

// ProxyAnswer has a status, or 0 and the reason.
type ProxyAnswer struct {
	Status     int     `json:"status"`
	Seconds    float64 `json:"seconds"`
	Error      string  `json:"error"`      // why there is no status, or Squid's error
	Challenges string  `json:"challenges"` // the schemes of credentials that it demands
}

// TryProxy sends all requests in parallel, from the source address whose routing table leads to the proxy.
func TryProxy(tables []boot.Table, size int64, from io.Reader) (ProxyAnswers, error) {
	var question ProxyQuestion
	if err := json.NewDecoder(io.LimitReader(from, size)).Decode(&question); err != nil {
		return ProxyAnswers{}, errors.New("invalid question about a proxy") // it has a secret
	}
	index := slices.IndexFunc(tables, func(table boot.Table) bool { return table.Name == "proxied" })
	if index < 0 {
		return ProxyAnswers{}, errors.New("this Envoy has no upstream proxy")
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: tables[index].From.AsSlice()}, Timeout: attemptWithin}
	return ProxyAnswers{question.sendAll(dialer, speakWithin)}, nil
}

func (q ProxyQuestion) sendAll(dialer net.Dialer, within time.Duration) []ProxyAnswer {
	answers := make([]ProxyAnswer, len(q.Requests))
	var all sync.WaitGroup
	for index, request := range q.Requests {
		all.Go(func() {
			begun := time.Now()
			answer, err := q.send(dialer, request, within)
			if err != nil {
				answer.Error = reason(err)
			}
			answer.Seconds = time.Since(begun).Seconds()
			answers[index] = answer
		})
	}
	all.Wait()
	return answers
}

func (q ProxyQuestion) send(dialer net.Dialer, request string, within time.Duration) (ProxyAnswer, error) {
	connection, err := dialer.Dial("tcp4", q.Proxy)
	if err != nil {
		return ProxyAnswer{}, err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(within))
	if q.TLS {
		host, _, _ := net.SplitHostPort(q.Proxy)
		config := &tls.Config{ServerName: host}
		if q.Roots != "" {
			config.RootCAs = x509.NewCertPool()
			config.RootCAs.AppendCertsFromPEM([]byte(q.Roots))
		}
		connection = tls.Client(connection, config)
	}
	response, err := exchange(connection, request)
	if err != nil {
		return ProxyAnswer{}, err
	}
	response.Body.Close()
	challenges := strings.Join(response.Header.Values("Proxy-Authenticate"), ", ") // one header for each scheme
	return ProxyAnswer{Status: response.StatusCode, Error: response.Header.Get("X-Squid-Error"), Challenges: challenges}, nil
}
