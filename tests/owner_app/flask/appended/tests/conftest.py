

@pytest.fixture
def member(client):
    """A client who is logged in as ada."""
    data = {"name": "ada", "password": "correct horse"}
    client.post("/auth/register", data=data)
    client.post("/auth/login", data=data)
    return client
