"""Folders in the layouts of the public sets, tiny and with the oddities of the real ones; all in them is invented."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
from PIL import Image


def write_film(path, seed=0, size=(24, 20), form=None):
    """A picture of grey noise, `size` wide and high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, size[::-1], np.uint8)
    Image.fromarray(pixels).save(path, format=form)
    return path


def write_table(path, text, gzipped=False, bom=False, windows=False):
    """A table given as text whose lines may be indented."""
    lines = [line.strip() for line in text.strip("\n").splitlines()]
    content = ("\ufeff" * bom + ("\r\n" if windows else "\n").join([*lines, ""])).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if gzipped else content)
    return path


# --- NIH ChestX-ray14 ---------------------------------------------------------------------------------------------


def write_nih(folder, old=False):
    """Two patients of three and one films; `old` is the first version's header, ages and folders of films."""
    names = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    rest = ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    header = names.replace(" ", "_") + rest + "," if old else names + rest
    age, end = ("058Y", ",") if old else ("58", "")
    rows = [
        f"00000013_001.png,Effusion|Mass,1,13,{age},M,AP,2500,2048,0.1,0.1{end}",
        f"00000013_000.png,No Finding,0,13,{age},M,PA,2500,2048,0.1,0.1{end}",
        f"00000013_002.png,Edema,2,13,{age},M,,2500,2048,0.1,0.1{end}",  # the file is missing
        f"00000007_000.png,Infiltration,0,7,{age},F,PA,2500,2048,0.1,0.1{end}",
        f"00000008_000.png,Rib Fracture,0,8,{age},F,PA,2500,2048,0.1,0.1{end}",  # no label of the set
        f"00000009_000.png,Hernia,0,x,{age},F,PA,2500,2048,0.1,0.1{end}",
    ]
    table = "Data_Entry_2017.csv" if old else "Data_Entry_2017_v2020.csv"
    write_table(folder / table, "\n".join([header, *rows]), windows=old, bom=old)
    write_table(
        folder / "BBox_List_2017.csv",
        """Image Index,Finding Label,Bbox [x,y,w,h],,,
        00000007_000.png,Infiltrate,100.5,200,300,400,,,
        00000007_000.png,Infiltrate,600,200,50,60
        00000013_001.png,Mass,10,20,0,60""",
    )
    write_table(folder / "train_val_list.txt", "00000013_000.png\n00000013_001.png\n00000013_002.png", windows=old)
    write_table(folder / "test_list.txt", "00000007_000.png\n00000008_000.png\n00000009_000.png")
    places = ("images_001/images", "images_002/images") if old else ("images", "images")
    for i, name in enumerate(("00000007_000", "00000008_000", "00000009_000", "00000013_000", "00000013_001")):
        write_film(folder / places[i % 2] / f"{name}.png", seed=i)
    return folder


# --- Open-i -------------------------------------------------------------------------------------------------------


def _openi_xml(number, findings, impression, headings, images):
    texts = {"COMPARISON": "None.", "INDICATION": "XXXX-year-old with chest pain", "FINDINGS": findings}
    parts = [f'<AbstractText Label="{name}">{text}</AbstractText>' for name, text in texts.items()]
    parts.append(f'<AbstractText Label="IMPRESSION">{impression}</AbstractText>')
    shown = "".join(f'<parentImage id="CXR{number}_{image}"><caption>Xray</caption></parentImage>' for image in images)
    majors = "".join(f"<major>{heading}</major>" for heading in headings)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{number}"/><MedlineCitation><Article><Abstract>'
        f"{''.join(parts)}</Abstract></Article></MedlineCitation><MeSH>{majors}</MeSH>{shown}</eCitation>"
    )


OPENI_XML = {
    "10": _openi_xml(10, "The XXXX is clear.", "Normal chest.", ["normal"], ["10_IM-0002-1001", "10_IM-0002-2001"]),
    "2": _openi_xml(2, "", "Left basilar atelectasis.", ["Pulmonary Atelectasis/base/left/mild"], ["2_IM-0652-1001"]),
    "3": _openi_xml(3, "", "", ["no indexing"], []),  # nothing to use
    "4": _openi_xml(4, "Stable cardiomegaly.", "", ["Cardiomegaly", "Opacity/lung"], []),  # text only
    "5": _openi_xml(5, "Broken off", "", [], [])[:200],
}


def write_openi(folder, archived=False, films=True):
    """Five reports; of the three films that they name one is missing."""
    if archived:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "NLMCXR_reports.tgz", "w:gz") as archive:
            for name, text in OPENI_XML.items():
                member = tarfile.TarInfo(f"ecgen-radiology/{name}.xml")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
    else:
        for name, text in OPENI_XML.items():
            write_table(folder / "ecgen-radiology" / f"{name}.xml", text)
    if films:
        write_film(folder / "NLMCXR_png/CXR10_10_IM-0002-1001.png", 1)
        write_film(folder / "NLMCXR_png/CXR2_2_IM-0652-1001.png", 2)
    return folder


def write_openi_kaggle(folder):
    write_table(
        folder / "indiana_reports.csv",
        """uid,MeSH,Problems,image,indication,comparison,findings,impression
        10,normal,normal,Xray,XXXX-year-old with chest pain,None.,The XXXX is clear.,Normal chest.
        2,Pulmonary Atelectasis/base/left/mild;Opacity/lung,x,Xray,Pain,,"The heart, as before, is large.",Atelectasis.
        3,normal,normal,Xray,Pain,,,""",
    )
    write_table(
        folder / "indiana_projections.csv",
        """uid,filename,projection
        10,10_IM-0002-1001.dcm.png,Frontal
        10,10_IM-0002-2001.dcm.png,Lateral
        2,2_IM-0652-1001.dcm.png,Lateral""",
    )
    for i, name in enumerate(("10_IM-0002-1001", "10_IM-0002-2001", "2_IM-0652-1001")):
        write_film(folder / f"images/images_normalized/{name}.dcm.png", i)
    return folder


# --- MIMIC-CXR ----------------------------------------------------------------------------------------------------

CHEXPERT_HEADER = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
MIMIC_REPORTS = {
    # an addendum above a line, a title in a header's place, two FINDINGS (the first empty), a numbered impression
    "p10/p10000001/s50000009": """ ADDENDUM: Dr. ___ was called.
 ______________________________________________________________________________
                                 FINAL REPORT
 CHEST, PA AND LATERAL:

 INDICATION:  ___ year old man with cough.

 FINDINGS:

 FINDINGS:  There is a small left pleural
 effusion.

 IMPRESSION:

 1.  Small left pleural effusion.
 2.  No pneumothorax.
""",
    "p10/p10000001/s50000002": """WET READ: ___ ___ 9:41 PM
  No pneumothorax.
 ______________________________________________________________________________
                                 FINAL REPORT
 HISTORY:  Fever.

 The lungs are clear.  Compared with ___, no change.
""",
    "p11/p11000003/s53000003": "                                 FINAL REPORT\n ___\n",
    "p11/p11000003/s53000004": " FINAL REPORT\r\n IMPRESSION:  Edema.\r\n",  # text only
}


def write_mimic_cxr(folder, version="2.1.0", archived=True, gzipped=True):
    """Two patients. Studies by time and not by number; one film with a blank view, one without any; one missing; a
    study without a row of labels, one of blanks, one without film and report."""
    jpg, text = folder / f"mimic-cxr-jpg/{version}", folder / f"mimic-cxr/{version}"
    end = ".csv.gz" if gzipped else ".csv"
    films = [
        ("aa", 10000001, 50000009, "PA", 21800506, "213014.531", "postero-anterior", "CHEST (PA AND LAT)"),
        ("ab", 10000001, 50000009, "LATERAL", 21800506, "213014.531", "lateral", "CHEST (PA AND LAT)"),
        ("ac", 10000001, 50000002, "", 21800626, "93014.0", "antero-posterior", "CHEST (PORTABLE AP)"),
        ("ad", 10000001, 50000001, "", 21800626, "170000.0", "", "CHEST (PORTABLE AP)"),
        ("ba", 11000003, 53000003, "", 21190101, "70000.0", "", "CHEST (PA AND LAT)"),
        ("bb", 11000003, 53000003, "LL", 21190101, "65959.0", "left lateral", "CHEST (PA AND LAT)"),  # missing file
        ("bc", 11000003, 53000005, "AP", 21190102, "0.0", "", "CHEST"),  # missing file
    ]
    columns = (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
        "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
    )
    rows = [
        f"{film},{patient},{study},{step},{view},20,24,{date},{time},x,{code},Erect"
        for film, patient, study, view, date, time, code, step in films
    ]
    write_table(jpg / f"mimic-cxr-2.0.0-metadata{end}", "\n".join([columns, *rows]), gzipped)
    split = ["dicom_id,study_id,subject_id,split"]
    split += [f"{film},{s},{p},{'validate' if p == 11000003 else 'train'}" for film, p, s, *_ in films]
    write_table(jpg / f"mimic-cxr-2.0.0-split{end}", "\n".join(split), gzipped, windows=True)
    for name in ("chexpert", "negbio"):
        write_table(
            jpg / f"mimic-cxr-2.0.0-{name}{end}",
            f"""subject_id,study_id,{CHEXPERT_HEADER}
            10000001,50000009,,,,,,,,,,1.0,,-1.0,0.0,
            10000001,50000002,,,,,,,,,1.0,,,,,2.0
            11000003,53000003,,,,,,,,,,,,,,""",
            gzipped,
            bom=True,
        )
    if version == "2.1.0":
        header = CHEXPERT_HEADER.replace("Lung Opacity", "Airspace Opacity")
        write_table(jpg / "mimic-cxr-2.1.0-test-set-labeled.csv", f"study_id,{header}\n53000003,,,,,,,,1.0,,,,,,0.0")
    for i, (film, patient, study, *_) in enumerate(films[:5]):
        write_film(jpg / f"files/p{patient // 10**6}/p{patient}/s{study}/{film}.jpg", i)
    if archived:
        text.mkdir(parents=True)
        with zipfile.ZipFile(text / "mimic-cxr-reports.zip", "w") as archive:
            for name, report in MIMIC_REPORTS.items():
                archive.writestr(f"files/{name}.txt", report)
    else:
        listed = [f"{name.split('/')[1][1:]},{name.split('/')[2][1:]},files/{name}.txt" for name in MIMIC_REPORTS]
        write_table(text / f"cxr-study-list{end}", "\n".join(["subject_id,study_id,path", *listed]), gzipped)
        for name, report in MIMIC_REPORTS.items():
            path = text / f"files/{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(report.encode())
    return folder
