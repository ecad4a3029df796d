// Go's net/http, as server and as client.
//
//	peer serve            listens on a free port, and says which
//	peer ask URL          asks by that, and says what it counted
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const clients, rounds = 16, 25

// The bytes of a file of so many bytes.
func content(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i * 7 >> 3)
	}
	return out
}

func sum(body []byte) string {
	hash := sha256.Sum256(body)
	return hex.EncodeToString(hash[:])
}

func serve() {
	modified := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	mux := http.NewServeMux()
	// Ranges, conditions, HEAD: all that http.ServeContent does.
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(w, r, "file.bin", modified, bytes.NewReader(content(1_000_000)))
	})
	// The body comes back, chunked unless its length was said, with its sum behind it.
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Method", r.Method)
		w.Header().Set("X-Told", r.Trailer.Get("X-Told"))
		w.Header().Set("X-Framing", fmt.Sprint(r.ContentLength, r.TransferEncoding))
		for at := 0; at < len(body); at += 40_000 {
			w.Write(body[at:min(len(body), at+40_000)])
			w.(http.Flusher).Flush()
		}
		w.Header().Set("X-Sum", sum(body))
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(103)
		fmt.Fprint(w, "hinted")
	})
	// It is decided by the head alone: the body is not read.
	mux.HandleFunc("/refused", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no", 403)
	})
	mux.HandleFunc("/aborted", func(w http.ResponseWriter, r *http.Request) {
		w.Write(content(100_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		left.Add(1)
	})
	mux.HandleFunc("/left", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, left.Load()) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	must(server.Serve(listener))
}

// Requests of /slow whose client has left.
var left atomic.Int64

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "wrong:", err)
		os.Exit(1)
	}
}

func check(ok bool, format string, args ...any) {
	if !ok {
		must(fmt.Errorf(format, args...))
	}
}

var asked, fresh atomic.Int64

// One request and its whole response.
func ask(client *http.Client, request *http.Request) (*http.Response, []byte) {
	trace := httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if !info.Reused {
			fresh.Add(1)
		}
	}}
	asked.Add(1)
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), &trace)))
	must(err)
	body, err := io.ReadAll(response.Body)
	must(err)
	response.Body.Close()
	return response, body
}

func get(url string, fields ...string) *http.Request {
	request, err := http.NewRequest("GET", url, nil)
	must(err)
	for i := 0; i < len(fields); i += 2 {
		request.Header.Set(fields[i], fields[i+1])
	}
	return request
}

// A reader whose length nobody knows.
type unknown struct{ io.Reader }

func bodies(client *http.Client, url string, number int) {
	for round := 0; round < rounds; round++ {
		sent := content((number*40_009 + round*7_919) % 300_000)
		method := []string{"POST", "PUT", "PATCH", "DELETE"}[round%4]
		chunked := round%3 == 0
		var reader io.Reader = bytes.NewReader(sent)
		if chunked {
			reader = unknown{reader}
		}
		request, err := http.NewRequest(method, url+"/echo", reader)
		must(err)
		if chunked {
			request.Trailer = http.Header{"X-Told": {"later"}}
		}
		if round%5 == 0 {
			request.Header.Set("Expect", "100-continue")
		}
		request.Header.Set("TE", "trailers")
		response, got := ask(client, request)
		check(response.StatusCode == 200 && bytes.Equal(got, sent), "body %d/%d: %d", number, round, response.StatusCode)
		check(response.Header.Get("X-Method") == method, "method")
		check(response.Trailer.Get("X-Sum") == sum(sent), "trailer %v", response.Trailer)
		framing, told := fmt.Sprint(len(sent), []string(nil)), ""
		if chunked {
			framing, told = fmt.Sprint(-1, []string{"chunked"}), "later"
		}
		check(response.Header.Get("X-Framing") == framing, "framing %s", response.Header.Get("X-Framing"))
		check(response.Header.Get("X-Told") == told, "trailer of the request %q", response.Header.Get("X-Told"))
	}
}

func files(client *http.Client, url string) {
	whole := content(1_000_000)
	response, got := ask(client, get(url+"/file"))
	check(response.StatusCode == 200 && bytes.Equal(got, whole), "the file")
	for _, row := range []struct {
		ranges     string
		start, end int
	}{{"0-0", 0, 1}, {"100-199", 100, 200}, {"-10", 999_990, 1_000_000}, {"999000-", 999_000, 1_000_000}} {
		response, got := ask(client, get(url+"/file", "Range", "bytes="+row.ranges))
		told := fmt.Sprintf("bytes %d-%d/1000000", row.start, row.end-1)
		check(response.StatusCode == 206 && response.Header.Get("Content-Range") == told, "range %s", row.ranges)
		check(bytes.Equal(got, whole[row.start:row.end]), "bytes of range %s", row.ranges)
	}
	response, got = ask(client, get(url+"/file", "Range", "bytes=0-1,5-6"))
	check(response.StatusCode == 206, "two ranges: %d", response.StatusCode)
	check(strings.HasPrefix(response.Header.Get("Content-Type"), "multipart/byteranges; boundary="), "their type")
	check(strings.Count(string(got), "Content-Range: bytes ") == 2, "both")
	response, _ = ask(client, get(url+"/file", "Range", "bytes=2000000-"))
	check(response.StatusCode == 416, "a range that is not there: %d", response.StatusCode)
	response, _ = ask(client, get(url+"/file", "If-None-Match", `"one"`))
	check(response.StatusCode == 304 && response.Header.Get("ETag") == `"one"`, "not modified: %d", response.StatusCode)
	response, _ = ask(client, get(url+"/file", "Range", "bytes=0-9", "If-Range", `"two"`))
	check(response.StatusCode == 200, "another version: %d", response.StatusCode)
	head := get(url + "/file")
	head.Method = "HEAD"
	response, got = ask(client, head)
	check(response.ContentLength == 1_000_000 && len(got) == 0, "HEAD: %d", response.ContentLength)
}

func others(client *http.Client, url string) {
	hints := 0
	trace := httptrace.ClientTrace{Got1xxResponse: func(code int, fields textproto.MIMEHeader) error {
		if code == 103 && fields.Get("Link") != "" {
			hints++
		}
		return nil
	}}
	request := get(url + "/hints")
	_, got := ask(client, request.WithContext(httptrace.WithClientTrace(context.Background(), &trace)))
	check(string(got) == "hinted" && hints == 1, "hints: %d", hints)
	// A body that nobody reads, and that the client need not send.
	refused, err := http.NewRequest("POST", url+"/refused", bytes.NewReader(content(900_000)))
	must(err)
	refused.Header.Set("Expect", "100-continue")
	response, got := ask(client, refused)
	check(response.StatusCode == 403 && string(got) == "no\n", "refused: %d", response.StatusCode)
	// A response that breaks off must not look complete.
	broken, err := client.Do(get(url + "/aborted"))
	must(err)
	_, err = io.ReadAll(broken.Body)
	check(err != nil, "a response that broke off")
	broken.Body.Close()
	// A client that leaves takes its request with it.
	leaving, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = client.Do(get(url + "/slow").WithContext(leaving))
	check(errors.Is(err, context.DeadlineExceeded), "left: %v", err)
	for begun := time.Now(); ; {
		_, got := ask(client, get(url+"/left"))
		if string(got) == "1" {
			break
		}
		check(time.Since(begun) < 10*time.Second, "the server does not know that the client has left")
		time.Sleep(5 * time.Millisecond)
	}
}

func play(url string) {
	transport := &http.Transport{
		MaxConnsPerHost:       clients,
		MaxIdleConnsPerHost:   clients,
		ExpectContinueTimeout: 5 * time.Second,
		DisableCompression:    true,
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	files(client, url)
	var all sync.WaitGroup
	for n := 0; n < clients; n++ {
		all.Add(1)
		go func(n int) {
			defer all.Done()
			bodies(client, url, n)
		}(n)
	}
	all.Wait()
	kept := fresh.Load()
	check(kept <= clients, "%d connections", kept)
	others(client, url)
	fmt.Println("ok " + strconv.FormatInt(asked.Load(), 10))
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve()
	case len(os.Args) == 3 && os.Args[1] == "ask":
		play(os.Args[2])
	default:
		must(errors.New("serve, or ask URL"))
	}
}
