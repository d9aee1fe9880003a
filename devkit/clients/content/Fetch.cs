using System;
using System.Net.Http;

/// <summary>Fetches one URL with the defaults of .NET's HttpClient, and prints the status and the body.</summary>
public static class Fetch
{
    public static int Main(string[] arguments)
    {
        var response = new HttpClient().GetAsync(arguments[0]).Result;
        Console.Write((int)response.StatusCode + " " + response.Content.ReadAsStringAsync().Result);
        return response.IsSuccessStatusCode ? 0 : 1;
    }
}
