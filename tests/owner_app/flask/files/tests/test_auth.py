import pytest


def test_member_can_log_in_and_out(member):
    assert "Write" in member.get("/").text
    member.post("/auth/logout")
    assert "Write" not in member.get("/").text


def test_wrong_password(member):
    member.post("/auth/logout")
    response = member.post("/auth/login", data={"name": "ada", "password": "guessed it"})
    assert "Wrong name or password." in response.text


@pytest.mark.parametrize(("name", "password"), [("", "long enough"), ("bob", "short")])
def test_incomplete_registration(client, name, password):
    response = client.post("/auth/register", data={"name": name, "password": password})
    assert "Please choose" in response.text


def test_name_is_taken(member):
    data = {"name": "ada", "password": "something else"}
    assert "ada is taken." in member.post("/auth/register", data=data).text
